//! Streams of a connection, as the transport reads and writes them: what cannot go on now simply has not.

use std::task::Poll;

use bytes::Bytes;
use conch_wire::Code;
use quinn_proto::{
    Connection, FinishError, ReadError, ReadableError, StreamId, VarInt, WriteError,
};

/// What a stream had to give.
#[derive(Debug)]
pub(super) enum Read {
    Bytes(Bytes),
    /// Not now.
    Nothing,
    /// Everything came.
    End,
    /// The client gave it up.
    Reset,
}

/// A code as an application error code of QUIC.
pub fn number(code: Code) -> VarInt {
    VarInt::from_u32(u32::from(code.number()))
}

/// Reads at most `bytes_max`.
pub(super) fn read(connection: &mut Connection, stream: StreamId, bytes_max: usize) -> Read {
    let mut recv = connection.recv_stream(stream);
    let mut chunks = match recv.read(true) {
        Ok(chunks) => chunks,
        // Read to its end before.
        Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return Read::End,
    };
    // Whether the client gets new credit is seen when the connection is asked what there is to send.
    match chunks.next(bytes_max) {
        Ok(Some(chunk)) => Read::Bytes(chunk.bytes),
        Ok(None) => Read::End,
        Err(ReadError::Blocked) => Read::Nothing,
        Err(ReadError::Reset(_)) => Read::Reset,
    }
}

/// Writes `bytes` until they are all with the connection; what is left stays in `bytes`.
pub(super) fn write(
    connection: &mut Connection,
    stream: StreamId,
    bytes: &mut Bytes,
) -> Poll<Result<(), WriteError>> {
    while !bytes.is_empty() {
        let chunks = std::slice::from_mut(bytes);
        match connection.send_stream(stream).write_chunks(chunks) {
            Ok(_) => {}
            Err(WriteError::Blocked) => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Nothing more is written. A stream that the client has stopped is given up, as it asked.
pub(super) fn finish(connection: &mut Connection, stream: StreamId) {
    if let Err(FinishError::Stopped(code)) = connection.send_stream(stream).finish() {
        let _ = connection.send_stream(stream).reset(code);
    }
}

/// Wants nothing of it any more, in both directions. Either may be over already, which is what is wanted.
pub(super) fn give_up(connection: &mut Connection, stream: StreamId, code: VarInt) {
    let _ = connection.recv_stream(stream).stop(code);
    let _ = connection.send_stream(stream).reset(code);
}
