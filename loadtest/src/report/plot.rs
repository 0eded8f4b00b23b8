//! Line plots as inline SVG: axes, grid, lines, legend. No script; a point's value shows when the pointer rests on it.
//!
//! Colours are the page's variables, so that a plot follows light and dark. A gap in a line is a point that is not there.

use std::fmt::Write;

/// Size of a plot in its own units; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Points with a value of their own to rest on; of longer lines only some have.
const MARKS_MAX: usize = 240;

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Scale {
    /// From 0, or from the lowest value if there are negative ones.
    Linear,
    Log,
    /// Shares of all: 0, 90 %, 99 %, 99.9 % … at equal distances.
    Nines,
}

pub(super) struct Line {
    pub(super) name: String,
    /// Which of the page's series colours, from 1.
    pub(super) colour: usize,
    pub(super) is_dashed: bool,
    /// In order of x; `None` is a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x_scale: Scale,
    pub(super) x_name: &'static str,
    pub(super) y_scale: Scale,
    pub(super) y_shown: fn(f64) -> String,
    pub(super) lines: Vec<Line>,
    /// x below it is shaded: the warm-up.
    pub(super) shaded_to: Option<f64>,
}

impl Plot {
    /// A `<figure>`; empty when there is nothing to draw.
    pub(super) fn draw(&self) -> String {
        let values = || {
            let points = self.lines.iter().flat_map(|line| &line.points);
            points.filter_map(|(x, y)| y.map(|y| (*x, y)))
        };
        if values().next().is_none() {
            return String::new();
        }
        let x = Axis::over(self.x_scale, values().map(|it| it.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(self.y_scale, values().map(|it| it.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption>{}<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title),
            self.legend(),
            escape(self.title)
        );
        if let Some(until) = self.shaded_to.filter(|until| *until > x.min) {
            let right = x.place(until.min(x.max));
            let _ = write!(
                svg,
                "<rect class=\"shade\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"/>",
                right - LEFT,
                HEIGHT - BOTTOM - TOP
            );
            // Where there is room for the word.
            if right - LEFT > 60.0 {
                let _ = write!(
                    svg,
                    "<text class=\"tick\" x=\"{}\" y=\"{}\">warm-up</text>",
                    LEFT + 6.0,
                    TOP + 14.0
                );
            }
        }
        self.axes(&mut svg, &x, &y);
        for line in &self.lines {
            self.line(&mut svg, line, &x, &y);
        }
        svg.push_str("</svg></figure>");
        svg
    }

    fn legend(&self) -> String {
        let mut html = String::from("<div class=\"legend\">");
        for line in &self.lines {
            let dashed = if line.is_dashed { " dashed" } else { "" };
            let _ = write!(
                html,
                "<span><i class=\"s{}{dashed}\"></i>{}</span>",
                line.colour,
                escape(&line.name)
            );
        }
        html.push_str("</div>");
        html
    }

    fn axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                escape(&(self.y_shown)(tick))
            );
        }
        let base = HEIGHT - BOTTOM;
        for tick in x.ticks() {
            let at = x.place(tick);
            let label = match self.x_scale {
                Scale::Nines => nines(tick),
                _ => number(tick),
            };
            let _ = write!(
                svg,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{base}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                base + 4.0,
                base + 17.0
            );
        }
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 3.0,
            escape(self.x_name)
        );
    }

    fn line(&self, svg: &mut String, line: &Line, x: &Axis, y: &Axis) {
        let mut path = String::new();
        let mut is_down = false;
        for (at, value) in &line.points {
            let Some(value) = value else {
                is_down = false;
                continue;
            };
            let command = if is_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", x.place(*at), y.place(*value));
            is_down = true;
        }
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let _ = write!(
            svg,
            "<path class=\"line s{}{dashed}\" d=\"{path}\"/>",
            line.colour
        );
        let every = line.points.len().div_ceil(MARKS_MAX).max(1);
        for (at, value) in line.points.iter().step_by(every) {
            let Some(value) = value else { continue };
            let label = match self.x_scale {
                Scale::Nines => nines(*at),
                _ => format!("{} s", number(*at)),
            };
            let _ = write!(
                svg,
                "<circle class=\"mark s{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\"><title>{} at {label}: {}</title></circle>",
                line.colour,
                x.place(*at),
                y.place(*value),
                escape(&line.name),
                escape(&(self.y_shown)(*value))
            );
        }
    }
}

/// Where values lie.
struct Axis {
    scale: Scale,
    min: f64,
    max: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            min = min.min(value);
            max = max.max(value);
        }
        match scale {
            Scale::Linear => {
                min = min.min(0.0);
                max = max.max(min + 1e-9);
                if from > to {
                    // Room above the highest, up to the next tick.
                    let step = step(min, max);
                    max = (max / step).ceil() * step;
                }
            }
            Scale::Log => {
                min = 10_f64.powf(min.max(1e-3).log10().floor());
                max = 10_f64.powf(max.max(1e-3).log10().ceil()).max(10.0 * min);
            }
            Scale::Nines => {
                min = 0.0;
                max = max.max(1.0);
            }
        }
        Axis {
            scale,
            min,
            max,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Log => {
                (value.max(self.min).log10() - self.min.log10())
                    / (self.max.log10() - self.min.log10())
            }
            Scale::Linear | Scale::Nines => (value - self.min) / (self.max - self.min),
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.min, self.max);
                let first = (self.min / step).ceil() as i64;
                let last = (self.max / step + 1e-9).floor() as i64;
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Scale::Log => {
                let (first, last) = (
                    self.min.log10().round() as i32,
                    self.max.log10().round() as i32,
                );
                let tens = (first..=last).map(|n| 10_f64.powi(n));
                if last - first > 2 {
                    return tens.collect();
                }
                // Few decades: some between.
                tens.flat_map(|ten| [ten, 2.0 * ten, 5.0 * ten])
                    .filter(|tick| *tick <= self.max * 1.000_001)
                    .collect()
            }
            Scale::Nines => (0..=self.max.floor() as i32).map(f64::from).collect(),
        }
    }
}

/// A round distance that gives four to eight ticks.
fn step(min: f64, max: f64) -> f64 {
    let rough = ((max - min) / 6.0).max(1e-9);
    let ten = 10_f64.powf(rough.log10().floor());
    let of = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|it| it * ten >= rough);
    of.unwrap_or(10.0) * ten
}

/// Nines back into a share: 2 is 99 %.
fn nines(value: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-value));
    let digits = (value.ceil() as usize).saturating_sub(2);
    if (value - value.round()).abs() < 1e-6 {
        format!("{percent:.digits$} %")
    } else {
        format!("{percent:.*} %", digits + 1)
    }
}

fn number(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 {
        format!("{}", value.round() as i64)
    } else {
        format!("{value:.1}")
    }
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '&' => html.push_str("&amp;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn nines_lie_at_equal_distances_and_are_named() {
        let axis = Axis::over(Scale::Nines, [0.0, 4.2].into_iter(), 0.0, 420.0);
        let ticks = axis.ticks();
        let names: Vec<_> = ticks.iter().map(|tick| nines(*tick)).collect();
        assert_eq!(names, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        let places: Vec<_> = ticks.iter().map(|tick| axis.place(*tick).round()).collect();
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0, 400.0]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        for max in [0.37, 7.0, 83.0, 123_456.0] {
            let axis = Axis::over(Scale::Linear, [0.0, max].into_iter(), 100.0, 0.0);
            let ticks = axis.ticks();
            assert!((3..=9).contains(&ticks.len()), "{max}: {ticks:?}");
            assert!(axis.max >= max);
        }
    }

    #[test]
    fn a_gap_is_not_drawn_over_and_nothing_gives_nothing() {
        let plot = |points| Plot {
            title: "t",
            x_scale: Scale::Linear,
            x_name: "s",
            y_scale: Scale::Linear,
            y_shown: number,
            lines: vec![Line {
                name: "<a>".to_owned(),
                colour: 1,
                is_dashed: false,
                points,
            }],
            shaded_to: None,
        };
        let svg = plot(vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0))]).draw();
        let path = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2);
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        assert_eq!(plot(vec![(0.0, None)]).draw(), "");
    }
}
