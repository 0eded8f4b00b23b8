//! The scripted server: everything that one case knows, behind one lock, and the tasks that feed it.
//!
//! [`State`] is changed by connections (what the client sends), by the client's lines (what it shows) and by the runner
//! (what the script says); every change wakes whoever waits. The first broken rule ends every wait: a case fails with what
//! was broken, not with the deadline of whatever came next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use anyhow::Result;
use conch_wire::ChannelId;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::host::Said;
use crate::rules::{Ms, Rules};
use crate::script::{Case, LimitsSpec};
use crate::session::{Held, Session};
use crate::showing::Showing;
use crate::transport::{Inbound, Link, QuicListener, Transport, listen};
use crate::world::World;

/// Lines of the trace that are kept.
const TRACE_LINES: usize = 400;
/// QUIC's own idle timeout, unless a case says otherwise.
const QUIC_IDLE_MS: u64 = 60_000;

/// What the client's process said beyond messages.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) states: VecDeque<String>,
    pub(crate) tokens_wanted: usize,
    pub(crate) older: usize,
    /// It ended, and the driver had not asked for it.
    pub(crate) ended: bool,
}

/// Everything that a case knows.
#[derive(Debug)]
pub(crate) struct State {
    started: Instant,
    pub(crate) world: World,
    pub(crate) rules: Rules,
    pub(crate) showing: Showing,
    pub(crate) client: Client,
    pub(crate) sessions: Vec<Session>,
    /// Types of frames that wait for the script.
    pub(crate) hold: HashSet<String>,
    pub(crate) held: VecDeque<Held>,
    pub(crate) taken: HashMap<String, Held>,
    pub(crate) counts: HashMap<&'static str, usize>,
    /// So many HELLOs are answered by a cut, and when they were.
    pub(crate) deny: usize,
    pub(crate) denied: Vec<Ms>,
    pub(crate) case_limits: LimitsSpec,
    pub(crate) stream_gaps: bool,
    /// The script asked for something that cannot be.
    failed: Option<String>,
    trace: VecDeque<String>,
}

impl State {
    fn new(case: &Case) -> State {
        State {
            started: Instant::now(),
            world: World::new(&case.channels),
            rules: Rules::default(),
            showing: Showing::default(),
            client: Client::default(),
            sessions: Vec::new(),
            hold: HashSet::new(),
            held: VecDeque::new(),
            taken: HashMap::new(),
            counts: HashMap::new(),
            deny: 0,
            denied: Vec::new(),
            case_limits: case.limits,
            stream_gaps: case.stream_gaps,
            failed: None,
            trace: VecDeque::new(),
        }
    }

    /// Milliseconds since the case began.
    pub(crate) fn now(&self) -> Ms {
        self.started.elapsed().as_millis() as Ms
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, line: String) {
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        let now = self.now();
        self.trace.push_back(format!("{now:>6} ms  {line}"));
    }

    /// The script cannot go on.
    pub(crate) fn fail(&mut self, what: &str) {
        self.failed.get_or_insert_with(|| what.to_owned());
    }

    /// The first finding, if there is one.
    pub(crate) fn finding(&self) -> Option<String> {
        let broken = self.rules.broken.first().or(self.showing.broken.first());
        broken.or(self.failed.as_ref()).cloned()
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    /// A line of the client.
    pub(crate) fn on_said(&mut self, said: Said) {
        match said {
            Said::State { state } => self.client.states.push_back(state),
            Said::Message { channel, message } => {
                self.showing
                    .on_message(&self.world, ChannelId(channel), &message);
            }
            Said::Sent { id, channel, seq } => {
                let channel = ChannelId(channel);
                self.showing
                    .on_sent(&self.world, &self.rules, id, channel, seq);
            }
            Said::Refused { id, code } => {
                self.showing.refused.extend(id.map(|id| (id, code)));
            }
            Said::Unread { channel, count } => {
                self.showing.channel(ChannelId(channel)).unread = Some(count);
            }
            Said::Left { channel } => self.showing.on_left(&self.world, ChannelId(channel)),
            Said::Reset { channel } => self.showing.on_reset(ChannelId(channel)),
            Said::Skipped { channel, to } => self.showing.on_skipped(ChannelId(channel), to),
            Said::TokenWanted => self.client.tokens_wanted += 1,
            Said::Older { .. } => self.client.older += 1,
            Said::View { channel, messages } => {
                self.showing
                    .on_view(&self.world, ChannelId(channel), messages);
            }
            Said::Other => {}
        }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Server {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// HTTP, and WebSocket when the case runs over it.
    pub(crate) address: SocketAddr,
    pub(crate) quic: Option<QuicListener>,
    accepting: OnceLock<AbortHandle>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.get() {
            accepting.abort();
        }
    }
}

impl Server {
    /// A server with the case's world, listening.
    pub(crate) async fn start(case: &Case, transport: Transport) -> Result<Arc<Server>> {
        let idle = Duration::from_millis(case.limits.quic_idle_ms.unwrap_or(QUIC_IDLE_MS));
        let listening = listen(transport, idle).await?;
        let server = Arc::new(Server {
            state: Mutex::new(State::new(case)),
            changed: watch::Sender::new(()),
            address: listening.address,
            quic: listening.quic,
            accepting: OnceLock::new(),
        });
        let accepting = tokio::spawn(accept(Arc::downgrade(&server), listening.links));
        server.accepting.get_or_init(|| accepting.abort_handle());
        Ok(server)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes something and wakes who waits.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Waits until `look` finds something. Ends early with the first finding.
    pub(crate) async fn wait<R>(
        &self,
        patience: Duration,
        awaited: impl FnOnce(&mut State) -> String,
        mut look: impl FnMut(&mut State) -> Option<R>,
    ) -> Result<R, String> {
        let mut changed = self.changed.subscribe();
        let found = timeout(patience, async {
            loop {
                changed.mark_unchanged();
                {
                    let mut state = self.lock();
                    if let Some(finding) = state.finding() {
                        return Err(finding);
                    }
                    if let Some(found) = look(&mut state) {
                        return Ok(found);
                    }
                    if state.client.ended {
                        return Err("the client's program ended by itself".to_owned());
                    }
                }
                if changed.changed().await.is_err() {
                    return Err("the server is gone".to_owned());
                }
            }
        });
        match found.await {
            Ok(result) => result,
            Err(_) => {
                let awaited = awaited(&mut self.lock());
                Err(format!(
                    "waited {} ms in vain for {awaited}",
                    patience.as_millis()
                ))
            }
        }
    }
}

/// Serves connections until the server is dropped.
async fn accept(server: Weak<Server>, mut links: mpsc::Receiver<Link>) {
    while let Some(link) = links.recv().await {
        tokio::spawn(serve(server.clone(), link));
    }
}

async fn serve(server: Weak<Server>, mut link: Link) {
    let Some(session) = server
        .upgrade()
        .map(|it| it.with(|state| state.on_connection(link.outgoing)))
    else {
        return;
    };
    while let Some(inbound) = link.incoming.recv().await {
        let Some(server) = server.upgrade() else {
            return;
        };
        server.with(|state| match inbound {
            Inbound::Frames(bytes) => state.on_bytes(session, bytes),
            Inbound::Request { stream, bytes } => state.on_request(session, stream, bytes),
            Inbound::Breach(what) => state.rules.breach(what),
            Inbound::Closed => state.on_closed(session),
        });
    }
}
