//! Dying on purpose, for the kill proof.
//!
//! Failpoints of every crate end the process through [`kill_self`], so that a crash at a chosen place looks to the
//! disk and to the peers exactly like `kill -9`: no destructor, no flush, no closing of files. A failpoint is written
//! `fail::fail_point!("log.written", |_| crash::kill_self())` and compiled in only by the feature `failpoints`; it is
//! armed from outside through `FAILPOINTS` (`fail::FailScenario::setup()` in the program reads it).
//!
//! What it does not do: decide when. Production code never calls it outside a failpoint.

/// Ends this process by SIGKILL, at once.
pub fn kill_self() -> ! {
    // SAFETY: no memory is involved; the call takes two integers and this process is a valid target.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    // The signal is delivered before the system call returns to this thread; this only tells the compiler so.
    std::process::abort()
}
