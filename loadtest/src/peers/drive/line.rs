//! One connection of the generator: a socket, its codec, and what waits on either side.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// Most that waits for the server to read, in bytes: behind that it does not take what it is sent.
const UNSENT_BYTES_MAX: usize = 64 << 20;

/// A connection and its place in the run.
pub(super) struct Connection {
    pub(super) line: Line,
    pub(super) io: Io,
    pub(super) is_ready: bool,
    /// Something was given to the codec since the last flush.
    pub(super) has_published: bool,
    /// It does not read any more.
    pub(super) is_stalled: bool,
    /// A receiver: number of the message that is due next.
    pub(super) next_number: u64,
}

/// Socket and codec.
pub(super) struct Io {
    socket: TcpStream,
    codec: Box<dyn Codec>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Connection {
    pub(super) fn open(
        poll: &Poll,
        token: Token,
        address: SocketAddr,
        line: Line,
        mut codec: Box<dyn Codec>,
    ) -> Result<Connection> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, token, interest)?;
        let mut unsent = Vec::new();
        codec.start(&mut unsent)?;
        Ok(Connection {
            line,
            io: Io {
                socket,
                codec,
                unread: Vec::new(),
                unsent,
                sent: 0,
                bytes_sent: 0,
                bytes_received: 0,
            },
            is_ready: false,
            has_published: false,
            is_stalled: false,
            next_number: 0,
        })
    }

    pub(super) fn publish(&mut self, payload: &[u8]) {
        self.has_published = true;
        self.io.codec.publish(payload, &mut self.io.unsent);
    }

    /// Lets out what was published.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.has_published = false;
        self.io.codec.flush(&mut self.io.unsent);
        self.write()
    }

    pub(super) fn write(&mut self) -> Result<()> {
        self.io.write().context("write to the server")
    }

    /// Bytes that the kernel holds between the server and this line: in the server's send queue and in the receive queue here.
    pub(super) fn kernel_bytes(&self) -> Result<u64> {
        let own = self.io.socket.local_addr()?.port();
        let theirs = self.io.socket.peer_addr()?.port();
        let table = fs::read_to_string("/proc/net/tcp").context("read /proc/net/tcp")?;
        Ok(queued_between(&table, own, theirs))
    }
}

impl Io {
    /// Reads until nothing is there, and tells what it means.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<()> {
        loop {
            let held = self.unread.len();
            ensure!(
                held < scratch.len(),
                "the server sent a message without an end"
            );
            scratch[..held].copy_from_slice(&self.unread);
            let read = match self.socket.read(&mut scratch[held..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read from the server"),
            };
            self.bytes_received += read as u64;
            self.unread.clear();
            let input = &scratch[..held + read];
            let done = self.codec.take(input, &mut self.unsent, seen);
            let done = done.map_err(|Breach(what)| anyhow::anyhow!(what))?;
            self.unread.extend_from_slice(&input[done..]);
            if held + read < scratch.len() {
                // Less than there was room for: the socket is empty, and epoll tells of what comes next.
                break;
            }
        }
        self.write().context("answer the server")
    }

    fn write(&mut self) -> Result<()> {
        while self.sent < self.unsent.len() {
            match self.socket.write(&self.unsent[self.sent..]) {
                Ok(written) => {
                    self.sent += written;
                    self.bytes_sent += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waiting = self.unsent.len() - self.sent;
                    ensure!(
                        waiting < UNSENT_BYTES_MAX,
                        "the server does not take what it is sent: {waiting} bytes wait"
                    );
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Sum of the server's transmit queue and the client's receive queue, from the text of `/proc/net/tcp`.
fn queued_between(table: &str, client: u16, server: u16) -> u64 {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let queued = |row: &str| {
        let mut fields = row.split_whitespace().skip(1);
        let local = port(fields.next()?)?;
        let remote = port(fields.next()?)?;
        let (transmit, receive) = fields.nth(1)?.split_once(':')?;
        let bytes = |hex| u64::from_str_radix(hex, 16).ok();
        match (local, remote) {
            it if it == (server, client) => bytes(transmit),
            it if it == (client, server) => bytes(receive),
            _ => None,
        }
    };
    table.lines().filter_map(queued).sum()
}

#[cfg(test)]
mod tests {
    use super::queued_between;

    #[test]
    fn queues_of_both_ends_are_added() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n   \
            0: 0100007F:1F90 0100007F:9C40 01 00010000:00000003 00:00000000\n   \
            1: 0100007F:9C40 0100007F:1F90 01 00000001:00000200 00:00000000\n   \
            2: 0100007F:9C41 0100007F:1F90 01 00000007:00000700 00:00000000\n";
        assert_eq!(queued_between(table, 0x9c40, 0x1f90), 0x10000 + 0x200);
    }
}
