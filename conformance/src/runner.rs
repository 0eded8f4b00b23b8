//! Runs cases: one step after the other, each with a deadline, against a fresh server, data folder and process of the client.
//!
//! Called by the program `conch-conform` and by tests. Cases run side by side, they share nothing. A failed case says which
//! step it was, what was broken or awaited in vain, and carries the trace of everything that was said on the wire and on the
//! client's lines.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use conch_wire::event::SendFlags;
use conch_wire::frame::{HEADER_BYTES, PushMode};
use conch_wire::{ChannelId, ClientFrame, Code, ServerFrame};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::host::{Command, Process, Quic, Said};
use crate::rules::short;
use crate::script::{
    AppendSpec, Case, Feature, RefuseSpec, SendSpec, ShowsSpec, Start, Step, Take, ViewSpec,
    filled, filled_wide,
};
use crate::server::{Server, State};
use crate::session::{Held, sends, text_of};
use crate::transport::Transport;

/// First ceiling of the client's delay before connecting again, in milliseconds.
const RECONNECT_BASE_MS: u64 = 20;
/// A delay that has grown is longer than so many first ceilings.
const GROWN: u64 = 10;
/// How long a client may take to end when it is asked to.
const QUIT_PATIENCE: Duration = Duration::from_secs(15);

/// How to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The client's program and its arguments.
    pub client: Vec<String>,
    /// Where data folders are made; each is removed when its case has passed.
    pub folder: PathBuf,
    /// Cases that run at the same time.
    pub jobs: usize,
    /// In place of the cases' own.
    pub patience: Option<Duration>,
    /// Each case runs over each of these that it is for.
    pub transports: Vec<Transport>,
    /// What the client has; cases that need something else are left out.
    pub features: Vec<Feature>,
}

/// How a case ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub name: String,
    pub transport: Transport,
    /// Step and reason.
    pub failure: Option<String>,
    pub trace: Vec<String>,
    pub took: Duration,
}

/// Runs all cases; the outcomes are in their order, one transport behind the other.
pub async fn run_all(cases: Vec<Case>, settings: Settings) -> Vec<Outcome> {
    let permits = Arc::new(Semaphore::new(settings.jobs.max(1)));
    let settings = Arc::new(settings);
    let mut running = JoinSet::new();
    let runs = settings.transports.iter().flat_map(|transport| {
        let run_over = |case: &&Case| {
            case.transports.contains(transport)
                && case.needs.iter().all(|it| settings.features.contains(it))
        };
        cases
            .iter()
            .filter(run_over)
            .map(|case| (case.clone(), *transport))
    });
    for (index, (case, transport)) in runs.enumerate() {
        let (permits, settings) = (permits.clone(), settings.clone());
        running.spawn(async move {
            let _permit = permits.acquire().await;
            (index, run(case, transport, &settings).await)
        });
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_unstable_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn run(case: Case, transport: Transport, settings: &Settings) -> Outcome {
    let began = Instant::now();
    let folder = settings.folder.join(format!("{}-{transport}", case.name));
    let outcome = |failure, trace| Outcome {
        name: case.name.clone(),
        transport,
        failure,
        trace,
        took: began.elapsed(),
    };
    if let Err(error) = fs::create_dir_all(&folder) {
        return outcome(
            Some(format!("folder {}: {error}", folder.display())),
            Vec::new(),
        );
    }
    let server = match Server::start(&case, transport).await {
        Ok(server) => server,
        Err(error) => return outcome(Some(format!("server: {error:#}")), Vec::new()),
    };
    let mut run = Run {
        patience: settings
            .patience
            .unwrap_or(Duration::from_millis(case.patience_ms)),
        server: server.clone(),
        client: settings.client.clone(),
        folder: folder.clone(),
        process: None,
        tokens: 1,
        states_seen: 0,
    };
    let failure = run.steps(&case.steps).await.err();
    drop(run);
    if failure.is_none() {
        // What stays behind is a nuisance, not a failure.
        let _ = fs::remove_dir_all(&folder);
    }
    outcome(failure, server.with(|state| state.trace()))
}

/// One case at work.
struct Run {
    server: Arc<Server>,
    client: Vec<String>,
    folder: PathBuf,
    process: Option<Process>,
    patience: Duration,
    /// Tokens given out so far: `token-1` …
    tokens: usize,
    states_seen: usize,
}

impl Run {
    async fn steps(&mut self, steps: &[Step]) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let mut text = format!("{step:?}");
            text.truncate(
                text.char_indices()
                    .nth(120)
                    .map_or(text.len(), |(end, _)| end),
            );
            self.server
                .with(|state| state.note(format!("step {}: {text}", index + 1)));
            let done = match self.step(step).await {
                Ok(()) => self
                    .server
                    .with(|state| state.finding().map_or(Ok(()), Err)),
                failed => failed,
            };
            done.map_err(|what| format!("step {} {}: {what}", index + 1, name_of(&text)))?;
        }
        if self.process.is_some() {
            self.quit()
                .await
                .map_err(|what| format!("after the last step: {what}"))?;
        }
        let finding = self.server.with(|state| state.finding());
        finding.map_or(Ok(()), |what| Err(format!("after the last step: {what}")))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Note(_) => Ok(()),
            Step::Start(start) => self.start(start).await,
            Step::Kill => self.kill().await,
            Step::Quit => self.quit().await,
            Step::Send(send) => self.send(send).await,
            Step::Open(name) => {
                let channel = self.channel(name)?.0;
                self.say(Command::Open { channel }).await
            }
            Step::Close(name) => {
                let channel = self.channel(name)?.0;
                self.say(Command::Close { channel }).await
            }
            Step::Read(read) => {
                let channel = self.channel(&read.channel)?.0;
                self.say(Command::Read {
                    channel,
                    seq: read.seq,
                })
                .await
            }
            Step::Older(older) => {
                let channel = self.channel(&older.channel)?.0;
                let before = self.server.with(|state| state.client.older);
                self.say(Command::Older {
                    channel,
                    items: older.items,
                })
                .await?;
                self.wait("the answer to older", |state| {
                    (state.client.older > before).then_some(())
                })
                .await
            }
            Step::State(name) => self.state(name).await,
            Step::Shows(shows) => self.shows(shows).await,
            Step::Sent(sent) => {
                let at = self
                    .wait(
                        &format!("the client to say that \"{}\" was sent", sent.id),
                        |state| state.showing.sent.get(&sent.id).copied(),
                    )
                    .await?;
                match sent.seq {
                    Some(seq) if seq != at => Err(format!("sent at seq {at}, not {seq}")),
                    _ => Ok(()),
                }
            }
            Step::Refused(refused) => {
                let code = self
                    .wait(
                        &format!("the client to say that \"{}\" was refused", refused.id),
                        |state| state.showing.refused.get(&refused.id).copied(),
                    )
                    .await?;
                match refused.code {
                    Some(wanted) if wanted != code => {
                        Err(format!("refused with {code}, not {wanted}"))
                    }
                    _ => Ok(()),
                }
            }
            Step::Unread(unread) => {
                let channel = self.channel(&unread.channel)?;
                let (count, name) = (unread.count, unread.channel.clone());
                self.wait_or_say(
                    move |state| {
                        let said = state.showing.channel(channel).unread;
                        format!("{count} unread in {name}; the client's last word was {said:?}")
                    },
                    move |state| {
                        (state.showing.channel(channel).unread == Some(count)).then_some(())
                    },
                )
                .await
            }
            Step::Left(name) => {
                let channel = self.channel(name)?;
                self.wait(
                    &format!("the client to say that {name} was left"),
                    |state| state.showing.channel(channel).left.then_some(()),
                )
                .await
            }
            Step::View(view) => self.view(view).await,
            Step::TokenWanted => self.give_token().await,
            step => self.serve(step).await,
        }
    }

    /// Steps of the server's side.
    async fn serve(&mut self, step: &Step) -> Result<(), String> {
        let server = self.server.clone();
        match step {
            Step::Hold(types) => server.with(|state| state.hold.extend(types.iter().cloned())),
            Step::Auto(types) => server.with(|state| {
                state.hold.retain(|it| !types.contains(it));
                let (go, stay) = std::mem::take(&mut state.held)
                    .into_iter()
                    .partition(|held| types.iter().any(|it| it == held.name));
                state.held = stay;
                let go: VecDeque<Held> = go;
                go.iter().for_each(|held| state.answer(held));
            }),
            Step::Take(take) => self.take(take).await?,
            Step::Answer(of) => self.with_taken(&of.of, |state, held| state.answer(held))?,
            Step::Welcome(welcome) => {
                self.with_taken(&welcome.of, |state, held| {
                    state.welcome(held, &welcome.pending)
                })?;
            }
            Step::Store(of) => self.with_taken(&of.of, |state, held| state.store(held))?,
            Step::Ack(of) => self.with_taken(&of.of, |state, held| state.ack(held))?,
            Step::Refuse(refuse) => self.refuse(refuse)?,
            Step::Reset(of) => self.with_taken(&of.of, |state, held| state.reset(held))?,
            Step::Append(append) => {
                if append.push {
                    self.session().await?;
                }
                self.append(append)?;
            }
            Step::Push(push) => {
                self.session().await?;
                let at = self.place(&push.channel)?;
                server.with(|state| (push.from..=push.to).for_each(|seq| state.push_all(at, seq)));
            }
            Step::Head(name) => {
                self.session().await?;
                let at = self.place(name)?;
                server.with(|state| state.head(at));
            }
            Step::SyncNow => {
                let s = self.session().await?;
                server.with(|state| state.put(s, &ServerFrame::SyncNow));
            }
            Step::UnknownFrame(spec) => {
                let s = self.session().await?;
                server.with(|state| state.put_bytes(s, unknown(spec.frame_type, spec.bytes)));
            }
            Step::Goaway(goaway) => {
                let s = self.session().await?;
                let frame = ServerFrame::Goaway {
                    code: Code::GoingAway,
                    delay_min_ms: goaway.delay_min_ms,
                    delay_max_ms: goaway.delay_max_ms,
                    endpoints: Vec::new(),
                };
                server.with(|state| {
                    let until = state.now() + u64::from(goaway.delay_min_ms);
                    state.rules.wait_before_connecting(until, "GOAWAY");
                    state.put(s, &frame);
                });
            }
            Step::AuthExpiring(expires_in_ms) => {
                let s = self.session().await?;
                let expires_in_ms = *expires_in_ms;
                server.with(|state| state.put(s, &ServerFrame::AuthExpiring { expires_in_ms }));
            }
            Step::Cut => {
                let s = self.session().await?;
                server.with(|state| state.cut(s));
            }
            Step::Finish => {
                let s = self.session().await?;
                server.with(|state| state.finish(s));
            }
            Step::Vanish => {
                self.session().await?;
                let quic = server.quic.as_ref();
                let quic = quic.ok_or("vanish: the case does not run over QUIC")?;
                quic.vanish().map_err(|error| format!("{error:#}"))?;
                server.with(State::vanish);
            }
            Step::End(end) => {
                let s = self.session().await?;
                server.with(|state| {
                    if end.code / 100 == 43 {
                        state.rules.forget_given();
                    }
                    state.end(s, end.code, end.retry_after_ms, end.word);
                });
            }
            Step::Silence => {
                let s = self.session().await?;
                server.with(|state| state.sessions[s].silent = true);
            }
            Step::Restore(restore) => server.with(|state| {
                state.world.restore(restore.generation, restore.keep);
                state.rules.forget_given();
            }),
            Step::Trim(trim) => {
                let at = self.place(&trim.channel)?;
                server.with(|state| state.world.trim(at, trim.first_seq));
            }
            Step::RemoveMe(remove) => {
                let at = self.place(&remove.channel)?;
                if remove.push {
                    self.session().await?;
                }
                server.with(|state| {
                    let by = state.world.user(&remove.by);
                    let seq = state.world.remove_me(at, by);
                    if remove.push {
                        state.push_all(at, seq);
                        state.end_aliases(at);
                    }
                });
            }
            Step::AddMe(add) => {
                let at = self.place(&add.channel)?;
                if add.push {
                    self.session().await?;
                }
                server.with(|state| {
                    let by = state.world.user(&add.by);
                    let seq = state.world.add_me(at, by);
                    if add.push {
                        state.push_all(at, seq);
                    }
                });
            }
            Step::VoidTokens => server.with(|state| state.world.void_tokens()),
            Step::Gather => {
                let s = self.session().await?;
                server.with(|state| state.gather(s));
            }
            Step::Flush => {
                let s = self.session().await?;
                server.with(|state| state.flush(s));
            }
            Step::Deny(count) => self.deny(*count).await?,
            Step::Pass(ms) => {
                sleep(Duration::from_millis(*ms)).await;
            }
            Step::Log(log) => {
                let at = self.place(&log.channel)?;
                let author = log
                    .author
                    .as_ref()
                    .map(|name| server.with(|state| state.world.user(name)));
                let texts = &log.texts;
                self.wait_or_say(
                    |state| {
                        let is = state.world.channels[at].texts(author);
                        format!("the log {texts:?}; it holds {is:?}")
                    },
                    |state| (state.world.channels[at].texts(author) == *texts).then_some(()),
                )
                .await?;
            }
            Step::Marked(marked) => {
                let at = self.place(&marked.channel)?;
                self.wait_or_say(
                    |state| {
                        let is = state.world.channels[at].read_seq;
                        format!("the read mark {}; it is {is}", marked.seq)
                    },
                    |state| (state.world.channels[at].read_seq == marked.seq).then_some(()),
                )
                .await?;
            }
            Step::Mark => server.with(|state| state.counts.clear()),
            Step::Count(count) => {
                let is = |state: &State| state.counts.get(&*count.frame).copied().unwrap_or(0);
                self.wait_or_say(
                    |state| format!("{} × {}; it was {}", count.at_least, count.frame, is(state)),
                    |state| (is(state) >= count.at_least).then_some(()),
                )
                .await?;
                let is = server.with(|state| is(state));
                if count.at_most.is_some_and(|most| is > most) {
                    return Err(format!("{is} × {}", count.frame));
                }
            }
            client => return Err(format!("step {client:?} is the client's")),
        }
        Ok(())
    }

    // The client's side.

    async fn start(&mut self, start: &Start) -> Result<(), String> {
        if self.process.is_some() {
            return Err("the client runs already".to_owned());
        }
        let started = Process::start(&self.client);
        let (process, mut stdout, mut stderr) = started.map_err(|error| format!("{error:#}"))?;
        self.process = Some(process);
        let token = start
            .token
            .clone()
            .unwrap_or_else(|| format!("token-{}", self.tokens));
        self.server.with(|state| {
            state.rules.restarted();
            state.rules.token(&token);
            state.client.ended = false;
        });
        let server = self.server.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                server.with(|state| {
                    state.note(format!("client: {}", short_line(&line)));
                    match serde_json::from_str::<Said>(&line) {
                        Ok(said) => state.on_said(said),
                        Err(error) => {
                            state.fail(&format!("line not understood ({error}): {}", short(&line)))
                        }
                    }
                });
            }
            server.with(|state| state.client.ended = true);
        });
        let server = self.server.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                server.with(|state| state.note(format!("client's errors: {}", short_line(&line))));
            }
        });
        let connect = Command::Connect {
            url: format!("ws://{}/v1/ws", self.server.address),
            token,
            data_dir: self.folder.display().to_string(),
            reconnect_base_ms: RECONNECT_BASE_MS,
            push: start.push.clone(),
            quic: self.server.quic.as_ref().map(|it| Quic {
                address: it.at().address.to_string(),
                certificate_sha256: it.at().certificate_sha256.clone(),
            }),
        };
        self.say(connect).await
    }

    async fn say(&mut self, command: Command) -> Result<(), String> {
        let process = self.process.as_mut().ok_or("the client does not run")?;
        self.server
            .with(|state| state.note(format!("driver: {}", short_line(&format!("{command:?}")))));
        process
            .say(&command)
            .await
            .map_err(|error| format!("{error:#}"))
    }

    async fn kill(&mut self) -> Result<(), String> {
        let mut process = self.process.take().ok_or("the client does not run")?;
        process.kill().await.map_err(|error| format!("{error:#}"))?;
        // Its last lines are read before the next process may say something.
        self.wait_ended().await?;
        self.server.with(|state| {
            state.showing.killed();
            state.client.states.clear();
            state.client.ended = false;
        });
        self.states_seen = 0;
        Ok(())
    }

    async fn quit(&mut self) -> Result<(), String> {
        self.say(Command::Quit).await?;
        let mut process = self.process.take().ok_or("the client does not run")?;
        let status = tokio::time::timeout(QUIT_PATIENCE, process.wait()).await;
        let status = status.map_err(|_| "the client did not end when asked to".to_owned())?;
        let status = status.map_err(|error| format!("{error:#}"))?;
        if !status.success() {
            return Err(format!("the client ended with {status}"));
        }
        self.wait_ended().await?;
        self.server.with(|state| {
            state.client.states.clear();
            state.client.ended = false;
        });
        self.states_seen = 0;
        Ok(())
    }

    /// Waits until the client's output is read to its end.
    async fn wait_ended(&self) -> Result<(), String> {
        self.wait("the end of the client's output", |state| {
            state.client.ended.then_some(())
        })
        .await
    }

    async fn send(&mut self, send: &SendSpec) -> Result<(), String> {
        let channel = self.channel(&send.channel)?;
        let text = filled(&send.text, send.bytes);
        self.server.with(|state| state.rules.wrote(channel, &text));
        let id = send.id.clone().unwrap_or_else(|| send.text.clone());
        self.say(Command::Send {
            channel: channel.0,
            text,
            id,
        })
        .await
    }

    async fn state(&mut self, name: &str) -> Result<(), String> {
        let seen = self.states_seen;
        let at = self
            .wait_or_say(
                |state| {
                    let said: Vec<_> = state.client.states.iter().skip(seen).collect();
                    format!("state {name}; since the last one there were {said:?}")
                },
                |state| {
                    state
                        .client
                        .states
                        .iter()
                        .skip(seen)
                        .position(|it| it == name)
                },
            )
            .await?;
        self.states_seen = seen + at + 1;
        Ok(())
    }

    async fn shows(&self, shows: &ShowsSpec) -> Result<(), String> {
        let channel = self.channel(&shows.channel)?;
        let is_it = |state: &mut State| {
            let shown = &state.showing.channel(channel).texts;
            shows.texts.as_ref().is_none_or(|texts| texts == shown)
                && shows.count.is_none_or(|count| count == shown.len())
                && shows
                    .last
                    .as_ref()
                    .is_none_or(|last| Some(last) == shown.last())
        };
        self.wait_or_say(
            |state| {
                let shown = &state.showing.channel(channel).texts;
                let wanted = match (&shows.texts, &shows.last) {
                    (Some(texts), _) => format!("{texts:?}"),
                    (None, Some(last)) => format!("\"{last}\" as the newest"),
                    (None, None) => format!("{:?} messages", shows.count),
                };
                let short: Vec<_> = shown
                    .iter()
                    .rev()
                    .take(10)
                    .rev()
                    .map(|it| short(it))
                    .collect();
                format!(
                    "{wanted} to be shown; shown are {} messages, the last {short:?}",
                    shown.len()
                )
            },
            |state| is_it(state).then_some(()),
        )
        .await
    }

    /// Asks until the answer is as wished, because what is stored may be a moment behind what is shown.
    async fn view(&mut self, view: &ViewSpec) -> Result<(), String> {
        let channel = self.channel(&view.channel)?;
        let until = Instant::now() + self.patience;
        loop {
            self.server
                .with(|state| state.showing.channel(channel).view = None);
            self.say(Command::View { channel: channel.0 }).await?;
            let held = self
                .wait("the answer to view", |state| {
                    state.showing.channel(channel).view.take()
                })
                .await?;
            let texts: Vec<_> = held.into_iter().filter_map(|it| it.text).collect();
            if view.texts.as_ref().is_none_or(|it| *it == texts)
                && view.count.is_none_or(|it| it == texts.len())
            {
                return Ok(());
            }
            if Instant::now() > until {
                let short: Vec<_> = texts.iter().map(|it| short(it)).collect();
                return Err(format!(
                    "the device holds {} messages: {short:?}",
                    texts.len()
                ));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn give_token(&mut self) -> Result<(), String> {
        let given = self.tokens - 1;
        self.wait("the client to want a new token", |state| {
            (state.client.tokens_wanted > given).then_some(())
        })
        .await?;
        self.tokens += 1;
        let token = format!("token-{}", self.tokens);
        self.server.with(|state| state.rules.token(&token));
        self.say(Command::Token { token }).await
    }

    // The server's side.

    async fn take(&self, take: &Take) -> Result<(), String> {
        let held = self
            .wait_or_say(
                |state| {
                    let waiting: Vec<_> = state.held.iter().map(|it| it.name).collect();
                    format!("a {} from the client; held are {waiting:?}", take.frame)
                },
                |state| {
                    let at = state.held.iter().position(|it| it.name == take.frame)?;
                    state.held.remove(at)
                },
            )
            .await?;
        self.server.with(|state| {
            check_taken(state, take, &held)?;
            state.taken.insert(take.name.clone(), held);
            Ok(())
        })
    }

    fn with_taken(&self, name: &str, act: impl FnOnce(&mut State, &Held)) -> Result<(), String> {
        self.server.with(|state| {
            let held = state
                .taken
                .get(name)
                .cloned()
                .ok_or(format!("no frame \"{name}\" was taken"))?;
            act(state, &held);
            Ok(())
        })
    }

    fn refuse(&self, refuse: &RefuseSpec) -> Result<(), String> {
        let code = Code::from_u16(refuse.code).ok_or(format!("{} is no code", refuse.code))?;
        self.with_taken(&refuse.of, |state, held| {
            state.refuse(held, code, refuse.retry_after_ms, refuse.item);
        })
    }

    fn append(&self, append: &AppendSpec) -> Result<(), String> {
        let at = self.place(&append.channel)?;
        self.server.with(|state| {
            let author = state.world.user(&append.author);
            for number in 1..=append.count.unwrap_or(1) {
                let text = match append.count {
                    Some(_) => format!("{} {number}", append.text),
                    None => append.text.clone(),
                };
                let text = match append.wide {
                    true => filled_wide(&text, append.bytes),
                    false => filled(&text, append.bytes),
                };
                let named = append.mentions.iter().map(|it| state.world.user(it));
                let named: Vec<_> = named.collect();
                let seq = match named.is_empty() {
                    true => {
                        let kind = append.kind.unwrap_or(1);
                        state.world.append(at, author, kind, text.into())
                    }
                    false => state.world.append_mention(at, author, &text, named),
                };
                if append.push {
                    state.push_all(at, seq);
                }
            }
        });
        Ok(())
    }

    /// Cuts so many connections at their HELLO, and looks whether the delays grow.
    async fn deny(&self, count: usize) -> Result<(), String> {
        self.server.with(|state| {
            state.deny = count;
            state.denied.clear();
        });
        self.wait_or_say(
            |state| {
                format!(
                    "{count} connections in vain; there were {}",
                    state.denied.len()
                )
            },
            |state| (state.deny == 0).then_some(()),
        )
        .await?;
        self.session().await?;
        let gaps: Vec<u64> = self.server.with(|state| {
            let pairs = state.denied.windows(2);
            pairs.map(|pair| pair[1] - pair[0]).collect()
        });
        let (early, late) = gaps.split_at(gaps.len().min(3));
        // What a busy machine adds is in the early ones too. Random delays below doubled ceilings are all so short once in
        // about ten thousand runs of ten.
        let grown = early.iter().max().copied().unwrap_or_default() * 2;
        let grown = grown.max(GROWN * RECONNECT_BASE_MS);
        if late.iter().all(|gap| *gap < grown) {
            return Err(format!(
                "P-057: delays before connecting again do not grow: {gaps:?} ms"
            ));
        }
        Ok(())
    }

    /// The newest connection, once its HELLO is answered.
    async fn session(&self) -> Result<usize, String> {
        self.wait("a connection whose HELLO is answered", |state| {
            let session = state.sessions.last().filter(|it| it.welcomed && !it.over)?;
            let _ = session;
            Some(state.sessions.len() - 1)
        })
        .await
    }

    fn place(&self, name: &str) -> Result<usize, String> {
        let at = self.server.with(|state| state.world.by_name(name));
        at.ok_or(format!("there is no channel {name}"))
    }

    fn channel(&self, name: &str) -> Result<ChannelId, String> {
        let at = self.place(name)?;
        Ok(self.server.with(|state| state.world.channels[at].id))
    }

    async fn wait<R>(
        &self,
        awaited: &str,
        look: impl FnMut(&mut State) -> Option<R>,
    ) -> Result<R, String> {
        self.wait_or_say(|_| awaited.to_owned(), look).await
    }

    async fn wait_or_say<R>(
        &self,
        awaited: impl FnOnce(&mut State) -> String,
        look: impl FnMut(&mut State) -> Option<R>,
    ) -> Result<R, String> {
        self.server.wait(self.patience, awaited, look).await
    }
}

/// Whether a taken frame is as the script says.
fn check_taken(state: &mut State, take: &Take, held: &Held) -> Result<(), String> {
    let frame = held.frame();
    let differs = |what: &str, is: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
        Err(format!("{what} is {is:?}, not {wanted:?}"))
    };
    if let Some((_, sends)) = sends(&frame) {
        let texts: Vec<_> = sends.iter().map(text_of).collect();
        if let Some(wanted) = take.texts.as_ref().filter(|wanted| **wanted != texts) {
            return differs("the send", &texts, wanted);
        }
        if let Some(wanted) = take.first.as_ref().filter(|wanted| **wanted != texts[0]) {
            return differs("the first message", &texts[0], wanted);
        }
        if let Some(retry) = take.retry
            && sends
                .iter()
                .any(|send| send.flags.contains(SendFlags::RETRY) != retry)
        {
            return Err(format!("P-030: not every message has RETRY = {retry}"));
        }
    }
    let token = match &frame {
        ClientFrame::Hello(hello) => Some(&hello.token),
        ClientFrame::AuthRefresh { token, .. } => Some(token),
        _ => None,
    };
    if let (Some(wanted), Some(token)) = (&take.token, token)
        && wanted != token
    {
        return differs("the token", token, wanted);
    }
    match &frame {
        ClientFrame::Hello(hello) => {
            let pending: Vec<_> = hello
                .pending
                .iter()
                .map(|it| state.pending_text(it.key))
                .collect();
            if let Some(wanted) = take.pending.as_ref().filter(|wanted| **wanted != pending) {
                return differs("the list of pending sends", &pending, wanted);
            }
            match take.sync_token.as_deref() {
                Some("none") if !hello.sync_token.is_empty() => {
                    return Err("12: HELLO has a sync token".to_owned());
                }
                Some("issued") if hello.sync_token.is_empty() => {
                    return Err("12: HELLO has no sync token".to_owned());
                }
                _ => {}
            }
            let mode = match hello.push {
                PushMode::All => "all",
                PushMode::Opened => "opened",
            };
            if let Some(wanted) = take.push_mode.as_ref().filter(|it| *it != mode) {
                return differs("the push mode", &mode, wanted);
            }
            if let Some(replaces) = take.replaces.filter(|it| *it != hello.replaces.is_some()) {
                return differs("replaces", &hello.replaces, &replaces);
            }
            let seqs: HashMap<_, _> = hello
                .cursors
                .iter()
                .map(|it| (it.channel, it.seq))
                .collect();
            for wanted in take.cursors.iter().flatten() {
                let at = state
                    .world
                    .by_name(&wanted.channel)
                    .ok_or("no such channel")?;
                let is = seqs.get(&state.world.channels[at].id);
                if is != Some(&wanted.seq) {
                    return differs("the cursor", &is, &wanted.seq);
                }
            }
        }
        ClientFrame::History { history, .. } => {
            if let Some((from, to)) = take
                .covers
                .filter(|(from, to)| history.from > *from || history.to < *to)
            {
                return differs(
                    "the range of HISTORY",
                    &(history.from, history.to),
                    &(from, to),
                );
            }
        }
        ClientFrame::Read { seq, .. } => {
            if let Some(wanted) = take.seq.filter(|wanted| wanted != seq) {
                return differs("the seq of READ", seq, &wanted);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A frame of a type that no version has.
fn unknown(frame_type: u8, bytes: usize) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + bytes);
    frame.put_u32_le(u32::from(frame_type) | (bytes as u32) << 8);
    frame.put_u32_le(0);
    frame.put_bytes(0xa5, bytes);
    frame.freeze()
}

/// The first word of a step.
fn name_of(step: &str) -> &str {
    step.split(['(', ' ']).next().unwrap_or(step)
}

fn short_line(line: &str) -> String {
    line.chars().take(200).collect()
}

/// A folder of its own for one run, within the system's folder for such things.
pub fn fresh_folder(name: &str) -> PathBuf {
    let unique = format!("conch-conform-{name}-{}", std::process::id());
    let folder: PathBuf = std::env::temp_dir().join(unique);
    let _ = fs::remove_dir_all(Path::new(&folder));
    folder
}
