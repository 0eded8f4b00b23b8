//! What a connection of the generator speaks: bytes in, what happened out. No socket, no clock.
//!
//! One codec per connection. The drive hands it whatever was read, in whatever pieces, and writes what it appends to `out`. A
//! codec does what its protocol asks of a client (acks of deliveries, credit, pongs) by itself and reports the rest.

use thiserror::Error;

/// Something that a server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening<'a> {
    /// Everything that was asked for at the beginning stands: the connection may publish, its subscriptions hold.
    Ready,
    /// The next `count` messages that this connection published were taken, in their order.
    Acked { count: u32 },
    /// A message.
    Delivered { payload: &'a [u8] },
}

/// Why a connection is of no more use: the server refused something, or said what the protocol does not allow.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Breach(pub String);

impl Breach {
    pub fn new(what: impl Into<String>) -> Breach {
        Breach(what.into())
    }
}

/// One connection's protocol.
pub trait Codec: Send {
    /// What a client says first.
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach>;

    /// Takes what was read and tells what it means. Gives the bytes that it is done with: the rest comes again, with what was read
    /// behind it.
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<usize, Breach>;

    /// Says one message to the channel of this connection. It may stay in the codec until [`Codec::flush`], and beyond where the
    /// protocol allows one batch in flight only.
    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>);

    /// What was published since the last time goes out now, if the protocol allows it.
    fn flush(&mut self, _out: &mut Vec<u8>) {}
}

/// Everything that a codec makes of `input` when it comes in pieces of at most `piece` bytes, and what it answered: for tests of
/// codecs, which must not depend on where the network cuts.
#[cfg(test)]
pub(super) fn in_pieces(
    codec: &mut dyn Codec,
    input: &[u8],
    piece: usize,
) -> Result<(Vec<String>, Vec<u8>), Breach> {
    let (mut seen, mut out, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in input.chunks(piece) {
        held.extend_from_slice(chunk);
        let done = codec.take(&held, &mut out, &mut |it| seen.push(format!("{it:?}")))?;
        held.drain(..done);
    }
    assert!(held.is_empty(), "{} bytes were left over", held.len());
    Ok((seen, out))
}

/// Checks that `input` means the same in one piece and in pieces of every size, and gives what it means and what was answered.
#[cfg(test)]
pub(super) fn split_anywhere(
    mut fresh: impl FnMut() -> Box<dyn Codec>,
    input: &[u8],
) -> (Vec<String>, Vec<u8>) {
    let whole =
        in_pieces(&mut *fresh(), input, input.len()).expect("the server keeps to its protocol");
    for piece in 1..input.len() {
        let pieces =
            in_pieces(&mut *fresh(), input, piece).expect("the server keeps to its protocol");
        assert_eq!(pieces, whole, "in pieces of {piece} bytes");
    }
    whole
}
