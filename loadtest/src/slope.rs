//! How a figure changes with a size: a slope, an exponent, and a word for it.
//!
//! Pure. A **slope** is what one more of something costs (least squares over linear axes: bytes per connection). An
//! **exponent** says how a cost follows a size that spans decades (least squares over logarithmic axes): 0 is flat, 1 is
//! proportional, so a figure with exponent 0.1 rises by a quarter for each tenfold of the size.

use std::fmt;

/// An exponent up to this counts as flat: less than a quarter more for ten times the size, about what two runs on a shared
/// machine differ by.
pub const FLAT_EXPONENT: f64 = 0.1;

/// What became of a figure over a sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Flat,
    Grows,
    /// Less for more: what is shared is spread over more.
    Falls,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Flat => "flat",
            Verdict::Grows => "grows",
            Verdict::Falls => "falls",
        })
    }
}

/// Least-squares slope of `y` over `x`; 0 for less than two different sizes.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    if points.len() < 2 {
        return 0.0;
    }
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let (mut over, mut under) = (0.0, 0.0);
    for (x, y) in points {
        over += (x - mean_x) * (y - mean_y);
        under += (x - mean_x).powi(2);
    }
    if under > 0.0 { over / under } else { 0.0 }
}

/// Exponent `e` of the best `y = a·xᵉ`. Points that are not above 0 on both axes have no logarithm and are left out.
pub fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    slope(&logs)
}

/// The word for a sweep, sizes ascending. What falls first and then rises grows: the end is what a larger installation
/// meets, so the last half of the points (at least three) is judged by itself too.
pub fn verdict(points: &[(f64, f64)]) -> Verdict {
    let all = exponent(points);
    let end = if points.len() >= 4 {
        exponent(&points[(points.len() / 2).min(points.len() - 3)..])
    } else {
        all
    };
    if all > FLAT_EXPONENT || end > FLAT_EXPONENT {
        Verdict::Grows
    } else if all < -FLAT_EXPONENT {
        Verdict::Falls
    } else {
        Verdict::Flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(of: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        [2.0, 10.0, 30.0, 100.0, 300.0, 1_000.0]
            .map(|x| (x, of(x)))
            .to_vec()
    }

    #[test]
    fn a_slope_is_what_one_more_costs() {
        let points = [1_000.0, 5_000.0, 10_000.0].map(|x| (x, 3e7 + x * 2_048.0));
        assert!((slope(&points) - 2_048.0).abs() < 0.001);
        assert_eq!(slope(&points[..1]), 0.0);
        assert_eq!(slope(&[(5.0, 1.0), (5.0, 2.0)]), 0.0);
    }

    #[test]
    fn an_exponent_is_that_of_the_power() {
        assert!((exponent(&sweep(|x| 3.0 * x)) - 1.0).abs() < 1e-9);
        assert!((exponent(&sweep(|x| 3.0 * x.sqrt())) - 0.5).abs() < 1e-9);
        assert!(exponent(&sweep(|_| 7.0)).abs() < 1e-9);
        assert_eq!(exponent(&[(0.0, 1.0), (10.0, 0.0), (10.0, 5.0)]), 0.0);
    }

    #[test]
    fn verdicts_follow_the_end_of_a_sweep() {
        assert_eq!(verdict(&sweep(|_| 7.0)), Verdict::Flat);
        assert_eq!(verdict(&sweep(|x| 100.0 + x)), Verdict::Grows);
        assert_eq!(verdict(&sweep(|x| 5.0 + 100.0 / x)), Verdict::Falls);
        // Spread at first, then worse with every member.
        assert_eq!(verdict(&sweep(|x| 500.0 / x + x / 100.0)), Verdict::Grows);
        // Noise of a tenth in a level line.
        let noisy = [9.0, 11.0, 10.0, 9.5, 10.5, 10.0];
        let noisy: Vec<_> = sweep(|x| x)
            .iter()
            .zip(noisy)
            .map(|(p, y)| (p.0, y))
            .collect();
        assert_eq!(verdict(&noisy), Verdict::Flat);
    }
}
