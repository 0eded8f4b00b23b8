//! A plain device: it tells the checker what it is pushed, as it is pushed, and repairs nothing unless it is told to.
//!
//! A client that keeps to the protocol merges by seq and fetches what is missing; so it hides a push that was dropped or
//! came twice. Tests that must see such a thing look through this one. It is in one channel.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use conch_loadtest::checker::{Checker, Fingerprint, FullRead, Observed};
use conch_loadtest::device::SharedChecker;
use conch_loadtest::http::Login;
use conch_loadtest::raw::{Answer, Draft, RawClient, answers};
use conch_wire::frame::{ChannelHead, History, HistoryPage};
use conch_wire::{Alias, ChannelId, ClientFrame, EventKind, Seq, ServerFrame, limits};
use tokio::time::Instant;

use crate::hello;

/// A connected device.
#[derive(Debug)]
pub struct PlainDevice {
    client: RawClient,
    checker: SharedChecker,
    login: Login,
    channel: ChannelId,
    alias: Alias,
    /// What it was shown, to know what it was not.
    shown: BTreeSet<Seq>,
    /// Up to here it had everything when it came; pushes of that were under way.
    had: Seq,
}

impl PlainDevice {
    /// Connects to `http` (`ip:port`), opens the channel, and shows all that lies there.
    pub async fn enter(
        http: &str,
        login: &Login,
        channel: ChannelId,
        checker: &SharedChecker,
    ) -> Result<PlainDevice> {
        let mut device = PlainDevice::come(http, login, channel, checker, BTreeSet::new()).await?;
        device.pull().await?;
        Ok(device)
    }

    /// Ends the connection and comes again. What it was shown meanwhile it must be told by [`PlainDevice::pull`].
    pub async fn again(self, http: &str) -> Result<PlainDevice> {
        let PlainDevice {
            client,
            checker,
            login,
            channel,
            shown,
            ..
        } = self;
        drop(client);
        PlainDevice::come(http, &login, channel, &checker, shown).await
    }

    async fn come(
        http: &str,
        login: &Login,
        channel: ChannelId,
        checker: &SharedChecker,
        shown: BTreeSet<Seq>,
    ) -> Result<PlainDevice> {
        let (mut client, welcome) = RawClient::open(http, hello(login)).await?;
        let changes = client.first_changes().await?;
        let opened = client.open_fresh(channel, 1).await?;
        let device = PlainDevice {
            client,
            checker: checker.clone(),
            login: login.clone(),
            channel,
            alias: opened.alias,
            shown,
            had: opened.head.head_seq,
        };
        device.tell(|checker, it| {
            checker.inbox_position(it.login.device, welcome.inbox_position);
            checker.read_mark(it.login.device, channel, opened.head.read_seq);
            for row in changes
                .rows
                .iter()
                .filter(|row| row.head.channel == channel)
            {
                checker.final_read_mark(it.login.user, channel, row.head.read_seq);
            }
        });
        Ok(device)
    }

    /// Sends a message and waits for the answer.
    pub async fn say(&mut self, draft: &Draft) -> Result<Answer> {
        let request = self.start(draft).await?;
        self.answer(request, draft).await
    }

    /// Puts a message on the wire; gives the request.
    pub async fn start(&mut self, draft: &Draft) -> Result<u32> {
        let (user, device) = (self.login.user, self.login.device);
        let print = self.print(draft);
        self.tell(|checker, it| checker.attempted(it.channel, user, device, draft.key, print));
        Ok(self.client.start_send(self.alias, draft).await?)
    }

    /// Waits for the answer to what [`PlainDevice::start`] sent.
    pub async fn answer(&mut self, request: u32, draft: &Draft) -> Result<Answer> {
        let print = self.print(draft);
        let answer = self.client.sent(request).await?;
        match &answer {
            Answer::Acked(acks) => {
                let seq = acks.first().context("an ack")?.seq;
                self.tell(|checker, it| checker.acked(it.channel, print, seq));
                if !draft.retry {
                    let kind = EventKind::Text as u8;
                    self.show(Observed::parts(seq, self.login.user, kind, &draft.text));
                }
            }
            Answer::Refused(_) => self.tell(|checker, it| checker.refused(it.channel, print)),
        }
        Ok(answer)
    }

    /// Shows what comes, until an event says `text`.
    pub async fn hear(&mut self, text: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let received = self.client.recv_until(deadline).await?;
            let frame = received
                .with_context(|| format!("{text:?} never came"))?
                .frame;
            let (ServerFrame::Deliver { event, .. } | ServerFrame::Event { event, .. }) = frame
            else {
                continue;
            };
            if event.seq > self.had {
                self.show(Observed::of(&event));
            }
            if event.text() == Some(text) {
                return Ok(());
            }
        }
    }

    /// Shows what history has and was not shown: the repair that it does not do by itself.
    pub async fn pull(&mut self) -> Result<()> {
        let mut pages = Pages::default();
        while let Some(page) = self.next_page(&mut pages).await? {
            for event in page
                .events
                .iter()
                .filter(|it| !self.shown.contains(&it.seq))
                .collect::<Vec<_>>()
            {
                self.show(Observed::of(event));
            }
        }
        Ok(())
    }

    /// Reads the whole history for the verdict.
    pub async fn read_history(&mut self) -> Result<()> {
        let mut pages = Pages::default();
        let mut read = FullRead::new(self.login.user, self.channel);
        while let Some(page) = self.next_page(&mut pages).await? {
            let events: Vec<_> = page.events.iter().map(Observed::of).collect();
            self.tell(|checker, _| read.page(checker, &events));
        }
        self.tell(|checker, _| read.end(checker, pages.head));
        Ok(())
    }

    /// Moves the read mark to the last event shown, and waits until that is durable.
    pub async fn read(&mut self, within: Duration) -> Result<()> {
        let (channel, seq) = (self.channel, self.shown.last().copied().unwrap_or(0));
        let request = 0;
        self.client
            .send(&ClientFrame::Read {
                request,
                channel,
                seq,
            })
            .await?;
        let is_confirmed = |frame: &ServerFrame| {
            matches!(frame, ServerFrame::ChannelHead(ChannelHead { channel: of, read_seq, .. })
                if *of == channel && *read_seq >= seq)
        };
        self.client
            .wait_for("the mark", within, is_confirmed)
            .await?;
        self.tell(|checker, it| checker.read_confirmed(it.login.device, channel, seq));
        Ok(())
    }

    /// Asks for the inbox position.
    pub async fn ping(&mut self) -> Result<()> {
        let position = self.client.ping().await?;
        self.tell(|checker, it| checker.inbox_position(it.login.device, position));
        Ok(())
    }

    async fn next_page(&mut self, pages: &mut Pages) -> Result<Option<HistoryPage>> {
        if pages.is_over {
            return Ok(None);
        }
        let request = self.client.next_request();
        let history = History {
            channel: self.channel,
            from: pages.until + 1,
            to: Seq::MAX,
            items_max: limits::HISTORY_ITEMS_MAX as u16,
            newest_first: false,
        };
        self.client
            .send(&ClientFrame::History { request, history })
            .await?;
        let is_answer = |frame: &ServerFrame| answers(frame) == Some(request);
        let patience = conch_loadtest::raw::PATIENCE;
        let answer = self.client.wait_for("a page", patience, is_answer).await?;
        let ServerFrame::HistoryPage { page, .. } = answer else {
            anyhow::bail!("no page: {answer:?}");
        };
        pages.head = page.head_seq;
        pages.until = page.covered_to;
        pages.is_over = page.events.is_empty() || page.covered_to >= page.head_seq;
        Ok(Some(page))
    }

    fn show(&mut self, event: Observed) {
        self.shown.insert(event.seq);
        self.tell(|checker, it| checker.delivered(it.login.device, it.channel, event));
    }

    fn print(&self, draft: &Draft) -> Fingerprint {
        Fingerprint::of(self.login.user, EventKind::Text as u8, &draft.text)
    }

    fn tell(&self, what: impl FnOnce(&mut Checker, &PlainDevice)) {
        let mut checker = self.checker.lock().expect("nobody panics while it reports");
        what(&mut checker, self);
    }
}

/// How far a reader of pages is.
#[derive(Debug, Default)]
struct Pages {
    until: Seq,
    head: Seq,
    is_over: bool,
}
