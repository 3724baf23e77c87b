//! The call that is running: its handles, and the effects that it has asked for.

use std::cell::RefCell;
use std::rc::Rc;

use super::effect::{Class, Effect};
use super::state::{Kept, Peer, State};
use crate::Message;

/// What is being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Authenticate,
    Opened,
    Closed,
    Inbound,
    Batch,
    Publication,
    Broadcast,
    Outbound,
    Subscription,
    Timer,
    Reply,
    Presence,
    /// Plain code of a test, by `Gateway::run`.
    Run,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Authenticate => "authenticate",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Inbound => "inbound",
            Self::Batch => "batch",
            Self::Publication => "publication",
            Self::Broadcast => "broadcast",
            Self::Outbound => "outbound",
            Self::Subscription => "subscription",
            Self::Timer => "timer",
            Self::Reply => "reply",
            Self::Presence => "presence",
            Self::Run => "run",
        }
    }

    fn allows(self, class: Class) -> bool {
        match self {
            Self::Init | Self::Publication | Self::Broadcast | Self::Run => false,
            Self::Authenticate => !matches!(class, Class::Subscribe | Class::Upstream),
            Self::Closed => !matches!(class, Class::Response | Class::Subscribe),
            Self::Outbound => class == Class::Session,
            Self::Opened | Self::Inbound | Self::Batch | Self::Subscription | Self::Timer | Self::Reply => {
                class != Class::Response
            }
            Self::Presence => class == Class::Beyond,
        }
    }
}

/// One call of a hook.
pub(super) struct Call {
    state: Rc<RefCell<State>>,
    pub(super) kind: Kind,
    session: Option<(u64, String)>,
    publications: Vec<(u64, Kept)>,
    effects: Vec<Effect>,
    first_effect: u32,
    if_refused: Vec<Message>,
}

/// What a call leaves behind.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) effects: Vec<Effect>,
    pub(super) if_refused: Vec<Message>,
}

thread_local! {
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Ends the call, also when the hook panics.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Run `hook` as a call for this session and publication. It gets their handles, 0 where there is none.
pub(super) fn run<T>(
    state: &Rc<RefCell<State>>,
    kind: Kind,
    session: Option<&str>,
    publication: Option<Kept>,
    hook: impl FnOnce(u64, u64) -> T,
) -> (T, Asked) {
    let number = state.borrow_mut().next_handle();
    let mut call = Call {
        state: Rc::clone(state),
        kind,
        session: session.map(|id| (number, id.to_owned())),
        publications: Vec::new(),
        effects: Vec::new(),
        // Numbers of one call are no other call's, so that a kept one is found out.
        first_effect: (number as u32).wrapping_mul(1 << 10),
        if_refused: Vec::new(),
    };
    let publication = publication.map_or(0, |kept| call.keep(kept));
    let session = call.session.as_ref().map_or(0, |(handle, _)| *handle);
    let outer = CURRENT.replace(Some(call));
    assert!(outer.is_none(), "a hook cannot call the test gateway: it runs inside a call already");
    let guard = Guard;
    let answer = hook(session, publication);
    let call = CURRENT.take();
    drop(guard);
    let asked = call.map_or_else(Asked::default, |call| Asked { effects: call.effects, if_refused: call.if_refused });
    (answer, asked)
}

/// The running call, for a host function.
pub(super) fn with<T>(function: impl FnOnce(&mut Call) -> T) -> T {
    CURRENT.with_borrow_mut(|current| match current {
        Some(call) => function(call),
        None => panic!(
            "a function of the gateway was called outside of a hook; \
             in tests, hooks are called by `testing::Gateway`, and other code by its `run`"
        ),
    })
}

impl Call {
    /// The gateway. Borrowed for one host function at a time.
    pub(super) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The session's id, or a trap where the handle is not this call's.
    pub(super) fn session_id(&self, handle: u64) -> String {
        match &self.session {
            Some((own, id)) if *own == handle => id.clone(),
            _ => panic!("trap: this session is not the running call's; handles are good for one call"),
        }
    }

    /// The session, read.
    pub(super) fn peer<T>(&self, handle: u64, read: impl FnOnce(&Peer) -> T) -> T {
        let id = self.session_id(handle);
        let state = self.state();
        match state.peers.get(&id) {
            Some(peer) => read(peer),
            None => panic!("the session `{id}` is unknown to the test gateway"),
        }
    }

    /// A handle for a publication.
    pub(super) fn keep(&mut self, kept: Kept) -> u64 {
        let handle = self.state().next_handle();
        self.publications.push((handle, kept));
        handle
    }

    /// The publication of a handle, or a trap.
    pub(super) fn publication(&self, handle: u64) -> &Kept {
        match self.publications.iter().find(|(own, _)| *own == handle) {
            Some((_, kept)) => kept,
            None => panic!("trap: this publication is not the running call's; handles are good for one call"),
        }
    }

    /// Buffer an effect.
    pub(super) fn push(&mut self, effect: Effect) -> u32 {
        assert!(
            self.kind.allows(effect.class()),
            "trap: the hook `{}` may not ask for this effect: {effect:?}",
            self.kind.name()
        );
        self.effects.push(effect);
        self.first_effect.wrapping_add(self.effects.len() as u32 - 1)
    }

    /// The effect of a number, for its options.
    pub(super) fn effect(&mut self, number: u32) -> &mut Effect {
        match self.effects.get_mut(number.wrapping_sub(self.first_effect) as usize) {
            Some(effect) => effect,
            None => panic!("trap: this effect is not the running call's"),
        }
    }

    /// The effects so far, latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().rev()
    }

    /// The effects so far, in order.
    pub(super) fn effects(&self) -> &[Effect] {
        &self.effects
    }

    pub(super) fn if_refused(&mut self, message: Message) {
        assert!(self.kind.allows(Class::Send), "trap: the hook `{}` may not send to a session", self.kind.name());
        self.if_refused.push(message);
    }
}
