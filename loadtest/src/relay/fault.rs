//! The faults that a relay can have, and by which kind of violation each is told.

use std::str::FromStr;

use thiserror::Error;

/// One fault. `at` of a [`super::Plan`] is a seq, or the number of a frame with sends on one connection, from 1.
///
/// A plain device shows what it is pushed, as it is pushed, and repairs nothing; a client that keeps to the protocol merges
/// by seq and fetches what is missing, and so hides what is marked with an asterisk: that is what it is for.
///
/// | fault | what the relay does | told as |
/// |---|---|---|
/// | `drop`* | the push of seq `at` does not reach the device | NotShown |
/// | `repeat`* | the push of seq `at` comes twice | ShownTwice |
/// | `swap` | the pushes of seqs `at` and `at + 1` come with each other's content | SeqTwice |
/// | `other-order` | the same in all that goes through the relay, pages too: one member sees another order | SeqTwice |
/// | `reorder` | the pushes of `at` and `at + 1` change places on the way, each with its seq | nothing: clients order by seq |
/// | `forge` | the push of seq `at` has a text that nobody wrote | Forged |
/// | `lose` | send `at` is acknowledged with the next seq, and does not reach the node | Lost, if it is the last one |
/// | `forget` | history ends at seq `at` | Lost |
/// | `seq-twice` | all behind seq `at` has a seq less, so that `at` is given twice | SeqTwice |
/// | `gap` | all from seq `at` on has a seq more, so that there is no `at` | Gap, Hole |
/// | `store-twice` | the node gets send `at` a second time under another key | Duplicate |
/// | `change-key` | a key that was used before reaches the node as another one | KeyTwice |
/// | `overtake` | send `at` waits until the next one has gone | Overtaken |
/// | `move-ack` | the ack of what is sent again tells a seq more | AckMoved |
/// | `refuse` | send `at` reaches the node, and the client is told that it was refused | RefusedButPresent |
/// | `read-back` | a channel that is opened tells a read mark one less | ReadMarkBack |
/// | `read-lost` | so does a row of changes | ReadLost |
/// | `inbox-back` | PONG tells an inbox position one below WELCOME's | InboxPositionBack |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Drop,
    Repeat,
    Swap,
    OtherOrder,
    Reorder,
    Forge,
    Lose,
    Forget,
    SeqTwice,
    Gap,
    StoreTwice,
    ChangeKey,
    Overtake,
    MoveAck,
    Refuse,
    ReadBack,
    ReadLost,
    InboxBack,
}

/// All of them by their names.
pub const FAULTS: [(&str, Fault); 18] = [
    ("drop", Fault::Drop),
    ("repeat", Fault::Repeat),
    ("swap", Fault::Swap),
    ("other-order", Fault::OtherOrder),
    ("reorder", Fault::Reorder),
    ("forge", Fault::Forge),
    ("lose", Fault::Lose),
    ("forget", Fault::Forget),
    ("seq-twice", Fault::SeqTwice),
    ("gap", Fault::Gap),
    ("store-twice", Fault::StoreTwice),
    ("change-key", Fault::ChangeKey),
    ("overtake", Fault::Overtake),
    ("move-ack", Fault::MoveAck),
    ("refuse", Fault::Refuse),
    ("read-back", Fault::ReadBack),
    ("read-lost", Fault::ReadLost),
    ("inbox-back", Fault::InboxBack),
];

/// No fault has this name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("no fault is called {name:?}; there are {}", FAULTS.map(|(name, _)| name).join(", "))]
pub struct UnknownFault {
    name: String,
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Fault, UnknownFault> {
        let found = FAULTS.iter().find(|(it, _)| *it == name);
        found.map(|(_, fault)| *fault).ok_or_else(|| UnknownFault {
            name: name.to_owned(),
        })
    }
}
