//! The relay's loop: one thread, one epoll.
//!
//! A pass reads what all ready connections have sent, commits it as one batch, then lets acks and deliveries out, with one write per
//! connection. While a batch is being synced the next one gathers in the sockets. A connection whose client does not read is
//! closed at [`UNSENT_BYTES_MAX`]; one that says what is not the protocol, at once.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::frame::{self, ACK, CHANNEL_MAX, DELIVER, PUBLISH, SUBSCRIBE, SUBSCRIBED};
use super::journal::{Journal, Syncing};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 << 10;
/// Most that waits for one client, in bytes.
const UNSENT_BYTES_MAX: usize = 64 << 20;
/// Most that is taken of one connection in one pass, so that all get their turn, in bytes.
const PASS_BYTES: usize = 1 << 20;

/// How a relay runs.
#[derive(Clone, Debug)]
pub struct RelayPlan {
    /// 0: one that the system chooses.
    pub port: u16,
    pub journal: PathBuf,
    /// Length of the file, in bytes.
    pub journal_bytes: u64,
    pub syncing: Syncing,
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    poll: Poll,
    listener: TcpListener,
    /// By token; the places of those that left stay empty.
    clients: Vec<Option<Client>>,
    channels: Vec<Channel>,
    journal: Journal,
    /// Clients with something to write, each once.
    dirty: Vec<usize>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    /// The beginning of a frame whose end has not come.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
    is_dirty: bool,
    /// More may be there than was read in its last turn.
    is_ready: bool,
}

#[derive(Debug, Default)]
struct Channel {
    last_seq: u32,
    subscribers: Vec<usize>,
}

/// Why a client is let go.
struct Gone;

fn find(clients: &mut [Option<Client>], id: usize) -> Option<&mut Client> {
    clients.get_mut(id)?.as_mut()
}

/// The channel of a number, made when it is first named; none above [`CHANNEL_MAX`].
fn channel(channels: &mut Vec<Channel>, number: u32) -> Option<&mut Channel> {
    let at = number as usize;
    if number <= CHANNEL_MAX && channels.len() <= at {
        channels.resize_with(at + 1, Channel::default);
    }
    channels.get_mut(at)
}

impl Relay {
    pub fn bind(plan: &RelayPlan, address: SocketAddr) -> io::Result<Relay> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Relay {
            poll,
            listener,
            clients: Vec::new(),
            channels: Vec::new(),
            journal: Journal::make(&plan.journal, plan.journal_bytes, plan.syncing)?,
            dirty: Vec::new(),
            scratch: vec![0; READ_BYTES],
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs until the disk or epoll fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut ready: Vec<usize> = Vec::new();
        loop {
            let wait = (!ready.is_empty()).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let Token(id) = event.token();
                let Some(client) = find(&mut self.clients, id) else {
                    continue;
                };
                if event.is_writable() && client.sent < client.unsent.len() && !client.is_dirty {
                    client.is_dirty = true;
                    self.dirty.push(id);
                }
                if (event.is_readable() || event.is_read_closed()) && !client.is_ready {
                    client.is_ready = true;
                    ready.push(id);
                }
            }
            for id in std::mem::take(&mut ready) {
                match self.read(id) {
                    Ok(true) => ready.push(id),
                    Ok(false) => {}
                    Err(Gone) => self.forget(id),
                }
            }
            self.journal.commit()?;
            for id in std::mem::take(&mut self.dirty) {
                if self.write(id).is_err() {
                    self.forget(id);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let _ = socket.set_nodelay(true);
            let id = self.clients.len();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, Token(id), interest)?;
            let client = Client {
                socket,
                unread: Vec::new(),
                unsent: Vec::new(),
                sent: 0,
                is_dirty: false,
                is_ready: false,
            };
            self.clients.push(Some(client));
        }
    }

    /// Takes what a client has sent; `true` when there may be more.
    fn read(&mut self, id: usize) -> Result<bool, Gone> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut taken = 0;
        let more = loop {
            let Some(client) = find(&mut self.clients, id) else {
                break Err(Gone);
            };
            let held = client.unread.len();
            scratch[..held].copy_from_slice(&client.unread);
            let read = match client.socket.read(&mut scratch[held..]) {
                Ok(0) => break Err(Gone),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    client.is_ready = false;
                    break Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break Err(Gone),
            };
            client.unread.clear();
            let input = &scratch[..held + read];
            let Ok(done) = self.take(id, input) else {
                break Err(Gone);
            };
            // A frame is shorter than 64 KiB, and so is what is left over: there is always room to read behind it.
            if let Some(client) = find(&mut self.clients, id) {
                client.unread.extend_from_slice(&input[done..]);
            }
            taken += read;
            if taken >= PASS_BYTES {
                break Ok(true);
            }
        };
        self.scratch = scratch;
        more
    }

    /// Does what whole frames ask for; gives their bytes.
    fn take(&mut self, id: usize, input: &[u8]) -> Result<usize, Gone> {
        let mut done = 0;
        while let Some(frame) = frame::cut(&input[done..]).map_err(|_| Gone)? {
            done += frame.consumed;
            let channel = channel(&mut self.channels, frame.channel).ok_or(Gone)?;
            match frame.kind {
                SUBSCRIBE => {
                    channel.subscribers.push(id);
                    self.answer(id, SUBSCRIBED, &[frame.channel], &[]);
                }
                PUBLISH => {
                    channel.last_seq += 1;
                    let seq = channel.last_seq;
                    let subscribers = std::mem::take(&mut channel.subscribers);
                    self.journal.add(frame.channel, seq, frame.rest);
                    self.answer(id, ACK, &[frame.channel, seq], &[]);
                    for subscriber in &subscribers {
                        self.answer(*subscriber, DELIVER, &[frame.channel, seq], frame.rest);
                    }
                    if let Some(channel) = self.channels.get_mut(frame.channel as usize) {
                        channel.subscribers = subscribers;
                    }
                }
                _ => return Err(Gone),
            }
        }
        Ok(done)
    }

    /// Puts a frame behind what waits for a client. It goes out after the commit of this pass.
    fn answer(&mut self, id: usize, kind: u8, numbers: &[u32], payload: &[u8]) {
        let Some(client) = find(&mut self.clients, id) else {
            return;
        };
        frame::put(&mut client.unsent, kind, numbers, payload);
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(id);
        }
    }

    fn write(&mut self, id: usize) -> Result<(), Gone> {
        let Some(client) = find(&mut self.clients, id) else {
            return Ok(());
        };
        client.is_dirty = false;
        while client.sent < client.unsent.len() {
            match client.socket.write(&client.unsent[client.sent..]) {
                Ok(written) => client.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waiting = client.unsent.len() - client.sent;
                    return if waiting > UNSENT_BYTES_MAX {
                        Err(Gone)
                    } else {
                        Ok(())
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        client.unsent.clear();
        client.sent = 0;
        Ok(())
    }

    fn forget(&mut self, id: usize) {
        self.clients[id] = None;
        for channel in &mut self.channels {
            channel.subscribers.retain(|subscriber| *subscriber != id);
        }
    }
}
