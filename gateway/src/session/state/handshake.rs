//! Who the session is: HELLO, its decision, and fresh tokens on a live connection.

use std::collections::VecDeque;

use conch_router::Refused;
use conch_wire::frame::{Hello, ServerFrame, Welcome, frame_type};
use conch_wire::{Code, limits};

use super::{Live, Phase, Session, Wanted, millis};
use crate::session::channels::{Channels, OpenOutcome};
use crate::session::effect::{Admission, Effect, Ending, Identity};
use crate::session::sync_token::SyncPlace;

impl Session {
    pub(super) fn on_hello(&mut self, mut hello: Hello) {
        if hello.cursors.len() > limits::HELLO_CURSORS_MAX
            || hello.pending.len() > limits::HELLO_PENDING_MAX
        {
            return self.end(
                Code::TooLarge,
                frame_type::HELLO,
                "too many cursors or pending sends",
            );
        }
        self.phase = Phase::Deciding(Box::new(Wanted {
            cursors: std::mem::take(&mut hello.cursors),
            sync: SyncPlace::from_token(&hello.sync_token, self.config.inbox),
            push: hello.push,
            credit_bytes: hello.credit_bytes,
        }));
        self.effects.push(Effect::Admit(Box::new(hello)));
    }

    pub(super) fn on_admitted(&mut self, now_ms: u64, admission: Admission) {
        let before = std::mem::replace(
            &mut self.phase,
            Phase::AwaitHello {
                deadline_ms: now_ms,
            },
        );
        let Phase::Deciding(wanted) = before else {
            return self.end(Code::InternalError, 0, "admitted without HELLO");
        };
        self.out.set_credit(wanted.credit_bytes);
        self.out.put(&ServerFrame::Welcome(Box::new(Welcome {
            minor: 0,
            features: 0,
            session: self.id,
            user: admission.identity.user,
            device: admission.identity.device,
            time_ms: admission.wall_ms,
            generation: self.config.inbox.generation,
            inbox_position: admission.inbox_position,
            limits: self.config.limits(),
            pending: admission.pending,
            resumed: wanted.sync != SyncPlace::Fresh,
            node: self.config.node.clone(),
        })));
        let mut live = Live {
            identity: admission.identity,
            push: wanted.push,
            channels: Channels::default(),
            sends_in_flight: 0,
            requests_in_flight: 0,
            small_running: 0,
            opens: VecDeque::new(),
            views_running: 0,
            pages: VecDeque::new(),
            pages_running: 0,
            hello_opens: 0,
            first_sync: Some(wanted.sync),
            retry_heads_ms: 0,
            expiring_told: false,
            inbox_position: admission.inbox_position,
            budget: None,
        };
        let mut refused = Vec::new();
        for (item, cursor) in wanted.cursors.iter().enumerate() {
            match live.channels.open(cursor, 0, item as u16) {
                Ok(OpenOutcome::Started) => {
                    live.opens.push_back(cursor.channel);
                    live.hello_opens += 1;
                    if let Some(opening) = live.channels.opening_mut(cursor.channel) {
                        opening.hello = true;
                    }
                }
                Ok(OpenOutcome::Joined) => {}
                Err(code) => refused.push((item as u16, code)),
            }
        }
        self.phase = Phase::Live(Box::new(live));
        for (item, code) in refused {
            let refused = Refused {
                code,
                retry_after_ms: 0,
                item,
                detail: "the alias may not be used",
            };
            self.put_refusal(0, frame_type::OPEN_CHANNEL, &refused);
        }
    }

    pub(super) fn on_not_admitted(&mut self, refused: &Refused) {
        self.put_refusal(0, frame_type::HELLO, refused);
        self.ending.get_or_insert(Ending {
            code: Some(refused.code),
            detail: refused.detail,
        });
    }

    pub(super) fn on_reauthenticated(
        &mut self,
        now_ms: u64,
        request: u32,
        result: Result<Identity, Refused>,
    ) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match result {
            Ok(fresh)
                if fresh.user == live.identity.user && fresh.device == live.identity.device =>
            {
                live.identity = fresh;
                live.expiring_told = false;
                self.out.put(&ServerFrame::AuthRefreshed {
                    request,
                    expires_in_ms: millis(fresh.expires_ms.saturating_sub(now_ms)),
                });
            }
            Ok(_) => self.refuse(
                request,
                frame_type::AUTH_REFRESH,
                Code::Unauthenticated,
                "the token is for another user or device",
            ),
            Err(refused) => self.put_refusal(request, frame_type::AUTH_REFRESH, &refused),
        }
    }
}
