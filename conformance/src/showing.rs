//! What holds for everything that a client shows, in every case.
//!
//! Pure: the host hands in what the client said, findings gather in [`Showing::broken`]. A channel's messages come in the
//! order of its log, each once, none left out between two that are shown (P-038, P-039, P-037); each is what the log says;
//! nothing is called sent that the server has not acknowledged. What was shown is kept over restarts of the client, because
//! its data folder is.

use std::collections::{HashMap, HashSet};

use conch_wire::{ChannelId, Seq, UserId};

use crate::host::ShownMessage;
use crate::rules::{Rules, short};
use crate::world::{Channel, World, is_message};

/// What a client has shown of one channel.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) texts: Vec<String>,
    last: Seq,
    /// A hole before the next message is no fault: it is the first, or the program was killed before it could say one.
    may_jump: bool,
    pub(crate) unread: Option<u32>,
    pub(crate) left: bool,
    /// The answer to the last question for everything that is held.
    pub(crate) view: Option<Vec<ShownMessage>>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Showing {
    pub(crate) broken: Vec<String>,
    channels: HashMap<ChannelId, Shown>,
    /// Sends that were reported stored, by their id, with their seq.
    pub(crate) sent: HashMap<String, Seq>,
    /// Sends that were reported refused, by their id, with the code.
    pub(crate) refused: HashMap<String, u16>,
    /// Texts reported as sent, for ids that a restarted client does not know.
    sent_at: HashSet<(ChannelId, Seq)>,
}

impl Showing {
    pub(crate) fn channel(&mut self, channel: ChannelId) -> &mut Shown {
        self.channels.entry(channel).or_insert_with(|| Shown {
            may_jump: true,
            ..Shown::default()
        })
    }

    /// The program was killed: what it stored last may never be said.
    pub(crate) fn killed(&mut self) {
        for shown in self.channels.values_mut() {
            shown.may_jump = true;
        }
    }

    pub(crate) fn on_message(&mut self, world: &World, id: ChannelId, message: &ShownMessage) {
        let Some(at) = world.by_id(id) else {
            return self.broken.push(format!(
                "shows a message of channel {id}, which does not exist"
            ));
        };
        let channel = &world.channels[at];
        if let Err(finding) = check_against_log(channel, message) {
            return self.broken.push(finding);
        }
        let (name, seq) = (channel.name.clone(), message.seq);
        let shown = self.channel(id);
        if seq <= shown.last {
            let last = shown.last;
            let finding =
                format!("P-038: shows seq {seq} of {name} after {last}: a repeat, or out of order");
            return self.broken.push(finding);
        }
        if !shown.may_jump
            && let Some(hole) = (shown.last + 1..seq).find(|seq| is_shown(channel, *seq))
        {
            self.broken.push(format!(
                "P-039: shows seq {seq} of {name} as if {hole} did not exist"
            ));
        }
        let shown = self.channel(id);
        shown.may_jump = false;
        shown.last = seq;
        shown.texts.push(message.text.clone().unwrap_or_default());
    }

    /// Everything that was shown of the channel is void.
    pub(crate) fn on_reset(&mut self, id: ChannelId) {
        let shown = self.channel(id);
        shown.texts.clear();
        shown.last = 0;
        shown.may_jump = true;
    }

    /// The person is out, and was out at some time indeed.
    pub(crate) fn on_left(&mut self, world: &World, id: ChannelId) {
        let channel = world.by_id(id).map(|at| &world.channels[at]);
        if let Some(channel) = channel.filter(|it| !it.was_left) {
            self.broken.push(format!(
                "P-044: says that {} was left, where the person is",
                channel.name
            ));
        }
        self.channel(id).left = true;
    }

    pub(crate) fn on_skipped(&mut self, id: ChannelId, to: Seq) {
        let shown = self.channel(id);
        shown.last = shown.last.max(to);
    }

    pub(crate) fn on_sent(
        &mut self,
        world: &World,
        rules: &Rules,
        id: Option<String>,
        channel: ChannelId,
        seq: Seq,
    ) {
        let event = world
            .by_id(channel)
            .and_then(|at| world.channels[at].event(seq));
        let Some(text) = event.and_then(|event| event.text()) else {
            return self.broken.push(format!(
                "P-028: reports a send as stored at seq {seq}, where there is no message"
            ));
        };
        if !rules.is_settled(text) {
            let finding = format!(
                "P-028: reports \"{}\" as stored before the server said so",
                short(text)
            );
            self.broken.push(finding);
        }
        if !self.sent_at.insert((channel, seq)) {
            self.broken
                .push(format!("reports the send at seq {seq} as stored twice"));
        }
        if let Some(id) = id {
            self.sent.insert(id, seq);
        }
    }

    /// Compares what a device holds with the log.
    pub(crate) fn on_view(&mut self, world: &World, id: ChannelId, messages: Vec<ShownMessage>) {
        if let Some(at) = world.by_id(id) {
            let checked = messages
                .iter()
                .map(|it| check_against_log(&world.channels[at], it));
            self.broken.extend(checked.filter_map(Result::err));
        }
        if messages.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            self.broken
                .push("P-039: a view is not in the order of the log".to_owned());
        }
        self.channel(id).view = Some(messages);
    }
}

/// Whether every client shows what is at this seq.
fn is_shown(channel: &Channel, seq: Seq) -> bool {
    seq >= channel.first_seq
        && channel
            .event(seq)
            .is_some_and(|event| is_message(event.kind) && event.text().is_some())
}

fn check_against_log(channel: &Channel, message: &ShownMessage) -> Result<(), String> {
    let (seq, name) = (message.seq, &channel.name);
    let event = channel
        .event(seq)
        .filter(|_| seq <= channel.head_seq())
        .ok_or(format!("shows seq {seq} of {name}, which does not exist"))?;
    if UserId(message.author) != event.author {
        return Err(format!(
            "shows seq {seq} of {name} as of author {}",
            message.author
        ));
    }
    match (event.text(), &message.text) {
        (Some(text), Some(shown)) if text == shown => Ok(()),
        (None, _) => Ok(()),
        (Some(text), shown) => Err(format!(
            "shows seq {seq} of {name} as {:?}; it is \"{}\"",
            shown.as_deref().map(short),
            short(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::ChannelSpec;

    fn shown(order: &[Seq]) -> Vec<String> {
        let world = World::new(&[ChannelSpec {
            name: "a".into(),
            peer: None,
            texts: Vec::new(),
            fill: 4,
        }]);
        let channel = &world.channels[0];
        let mut showing = Showing::default();
        for seq in order {
            let event = &channel.log[*seq as usize - 1];
            let message = ShownMessage {
                seq: *seq,
                author: event.author.0,
                text: event.text().map(str::to_owned),
            };
            showing.on_message(&world, channel.id, &message);
        }
        showing.broken
    }

    #[test]
    fn order_repeats_and_holes_are_seen() {
        assert!(shown(&[2, 3, 4, 5]).is_empty());
        assert!(
            shown(&[4, 5]).is_empty(),
            "a client may begin with the newest"
        );
        assert!(shown(&[2, 3, 3])[0].starts_with("P-038"));
        assert!(shown(&[3, 2])[0].starts_with("P-038"));
        assert!(shown(&[2, 4])[0].starts_with("P-039"));
    }
}
