//! What a person sees while it runs: on a terminal one line that is drawn again, elsewhere a plain line every few seconds,
//! both on standard error.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::duration;

/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Debug)]
pub(super) struct Progress {
    /// `None`: no terminal.
    bar: Option<ProgressBar>,
    said: Mutex<Option<Instant>>,
}

/// A moment of a round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) is_warm_up: bool,
    pub(super) connected: usize,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    /// Of deliveries, or of acks where there are none.
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) lag_p99_us: u64,
    pub(super) errors: u64,
    pub(super) left_s: u64,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.expect("the template is one"));
            bar
        });
        Progress {
            bar,
            said: Mutex::new(None),
        }
    }

    /// Something that is counted before the run begins.
    pub(super) fn setup(&self, what: &str, done: u64, of: u64) {
        self.say(done == of, || format!("{done} of {of} {what}"));
    }

    /// A step begins; the first moment of it is said at once.
    pub(super) fn step(&self, what: &str) {
        self.say(true, || what.to_owned());
        *self
            .said
            .lock()
            .expect("nobody panics while they hold this") = None;
    }

    pub(super) fn moment(&self, moment: &Moment) {
        self.say(false, || {
            // What must not be cut off comes first: a terminal has 80 columns.
            let phase = if moment.is_warm_up { "warm-up: " } else { "" };
            format!(
                "{phase}{} s left, {} errors, {}/s sent, {}/s shown, p50 {}, p99 {}, lag {}, {} connected",
                moment.left_s,
                moment.errors,
                moment.sent,
                moment.delivered,
                duration(moment.p50_us),
                duration(moment.p99_us),
                duration(moment.lag_p99_us),
                moment.connected,
            )
        });
    }

    /// Leaves a clean line for what comes.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    #[allow(clippy::print_stderr)] // progress is for people
    fn say(&self, always: bool, text: impl Fn() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text());
            bar.tick();
            return;
        }
        let mut said = self
            .said
            .lock()
            .expect("nobody panics while they hold this");
        if always || said.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
            *said = Some(Instant::now());
            eprintln!("{}", text());
        }
    }
}
