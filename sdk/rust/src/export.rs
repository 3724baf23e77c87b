//! Which hooks a plugin has, and how each call from the gateway reaches its method.

use crate::{Plugin, Result};

/// Register a plugin: its type, and the hooks that it has.
///
/// `init`, `authenticate`, `session` (both [`opened`](Plugin::opened) and [`closed`](Plugin::closed)), `inbound`,
/// `publication`, `timer`, `presence`. Only these are exported, and a hook that is not exported costs nothing. A hook
/// that is written and not named here is never called, in tests either.
///
/// ```
/// # use tidegate_sdk::{Message, Plugin, Result, Session, Verdict};
/// #[derive(Default)]
/// struct Echo;
///
/// impl Plugin for Echo {
///     fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
///         session.send(message);
///         Ok(Verdict::Stop)
///     }
/// }
///
/// tidegate_sdk::export!(Echo: inbound);
/// ```
///
/// A crate has one plugin. One that names `init` is made by [`Plugin::init`], any other by `Default`.
#[macro_export]
macro_rules! export {
    ($plugin:ident: $($hook:ident),+ $(,)?) => {
        impl $crate::Exported for $plugin {
            const HOOKS: &'static [$crate::Hook] = &[$($crate::__hook!($hook)),+];

            fn make() -> $crate::Result<Self> {
                $crate::__make!($($hook)+)
            }

            #[cfg(target_arch = "wasm32")]
            fn instance<T>(call: impl ::core::ops::FnOnce(&Self) -> $crate::Result<T>) -> $crate::Result<T> {
                ::std::thread_local! {
                    static INSTANCE: ::core::cell::OnceCell<$plugin> = const { ::core::cell::OnceCell::new() };
                }
                INSTANCE.with(|instance| $crate::wasm::call(instance, call))
            }
        }

        // Natively nothing but tests calls it, which would make all of the plugin dead code.
        const _: fn() -> $crate::Result<$plugin> = <$plugin as $crate::Exported>::make;

        $(
            #[cfg(target_arch = "wasm32")]
            #[allow(unsafe_code, reason = "exports are unmangled names")]
            const _: () = { $crate::__export_hook!($hook $plugin); };
        )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (init) => {
        $crate::Hook::Init
    };
    (authenticate) => {
        $crate::Hook::Authenticate
    };
    (session) => {
        $crate::Hook::Session
    };
    (inbound) => {
        $crate::Hook::Inbound
    };
    (publication) => {
        $crate::Hook::Publication
    };
    (timer) => {
        $crate::Hook::Timer
    };
    (presence) => {
        $crate::Hook::Presence
    };
    ($unknown:ident) => {
        ::core::compile_error!(::core::concat!(
            "there is no hook `",
            ::core::stringify!($unknown),
            "`; hooks: init, authenticate, session, inbound, publication, timer, presence"
        ))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __make {
    (init $($rest:ident)*) => { <Self as $crate::Plugin>::init() };
    ($other:ident $($rest:ident)*) => { $crate::__make!($($rest)*) };
    () => { $crate::Result::Ok(<Self as ::core::default::Default>::default()) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (init $plugin:ident) => { $crate::bindings::init::export!($plugin with_types_in $crate::bindings::init); };
    (authenticate $plugin:ident) => {
        $crate::bindings::authenticate::export!($plugin with_types_in $crate::bindings::authenticate);
    };
    (session $plugin:ident) => { $crate::bindings::session::export!($plugin with_types_in $crate::bindings::session); };
    (inbound $plugin:ident) => { $crate::bindings::inbound::export!($plugin with_types_in $crate::bindings::inbound); };
    (publication $plugin:ident) => {
        $crate::bindings::publication::export!($plugin with_types_in $crate::bindings::publication);
    };
    (timer $plugin:ident) => { $crate::bindings::timer::export!($plugin with_types_in $crate::bindings::timer); };
    (presence $plugin:ident) => {
        $crate::bindings::presence::export!($plugin with_types_in $crate::bindings::presence);
    };
    ($unknown:ident $plugin:ident) => {};
}

/// A hook that a plugin may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// [`Plugin::init`]
    Init,
    /// [`Plugin::authenticate`]
    Authenticate,
    /// [`Plugin::opened`] and [`Plugin::closed`]
    Session,
    /// [`Plugin::inbound`]
    Inbound,
    /// [`Plugin::publication`]
    Publication,
    /// [`Plugin::timer`]
    Timer,
    /// [`Plugin::presence`]
    Presence,
}

/// A plugin that [`export!`](crate::export!) has registered.
pub trait Exported: Plugin {
    /// The hooks that it has.
    const HOOKS: &'static [Hook];

    /// A new one, by `init` or by `Default`.
    ///
    /// # Errors
    /// What `init` answers.
    fn make() -> Result<Self>;

    #[doc(hidden)]
    #[cfg(target_arch = "wasm32")]
    fn instance<T>(call: impl FnOnce(&Self) -> Result<T>) -> Result<T>;
}

/// From the generated bindings to the plugin's methods.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod wasm {
    use std::cell::OnceCell;

    use super::Exported;
    use crate::bindings::{authenticate, inbound, init, presence, publication, session, timer};
    use crate::presence::{Change, Event};
    use crate::{Close, Closer, Decision, Error, Message, Publication, Result, Session, Verdict};

    use authenticate::exports::tidegate::plugin::on_authenticate;
    use inbound::exports::tidegate::plugin::on_inbound;
    use init::exports::tidegate::plugin::on_init;
    use presence::exports::tidegate::plugin::on_presence;
    use publication::exports::tidegate::plugin::on_publication;
    use session::exports::tidegate::plugin::on_session;
    use timer::exports::tidegate::plugin::on_timer;

    pub fn call<P: Exported, T>(instance: &OnceCell<P>, call: impl FnOnce(&P) -> Result<T>) -> Result<T> {
        if let Some(plugin) = instance.get() {
            return call(plugin);
        }
        let plugin = P::make()?;
        call(instance.get_or_init(|| plugin))
    }

    impl<P: Exported> on_init::Guest for P {
        fn handle() -> Result<(), String> {
            P::instance(|_| Ok(())).map_err(Error::into_message)
        }
    }

    impl<P: Exported> on_authenticate::Guest for P {
        fn handle(session: u64) -> Result<on_authenticate::Decision, String> {
            let decision = P::instance(|p| p.authenticate(Session::new(session))).map_err(Error::into_message)?;
            Ok(match decision {
                Decision::Refuse(status) => on_authenticate::Decision::Refuse(status),
                Decision::Pass => on_authenticate::Decision::Pass,
                Decision::Admit(user) => on_authenticate::Decision::Admit(user),
            })
        }
    }

    impl<P: Exported> on_session::Guest for P {
        fn opened(session: u64) -> Result<(), String> {
            P::instance(|p| p.opened(Session::new(session))).map_err(Error::into_message)
        }

        fn closed(session: u64, code: u16, reason: String, by: on_session::Closer) -> Result<(), String> {
            let by = match by {
                on_session::Closer::Client => Closer::Client,
                on_session::Closer::Plugin => Closer::Plugin,
                on_session::Closer::Gateway => Closer::Gateway,
                on_session::Closer::Network => Closer::Network,
            };
            let close = Close { code, reason, by };
            P::instance(|p| p.closed(Session::new(session), close)).map_err(Error::into_message)
        }
    }

    impl<P: Exported> on_inbound::Guest for P {
        fn handle(session: u64, message: Message) -> Result<Verdict, String> {
            P::instance(|p| p.inbound(Session::new(session), message)).map_err(Error::into_message)
        }
    }

    impl<P: Exported> on_publication::Guest for P {
        fn handle(publication: u64, topic: String, message: Message) -> Result<Verdict, String> {
            P::instance(|p| p.publication(Publication::new(publication), &topic, message)).map_err(Error::into_message)
        }
    }

    impl<P: Exported> on_timer::Guest for P {
        fn handle(session: u64, name: String) -> Result<(), String> {
            P::instance(|p| p.timer(Session::new(session), &name)).map_err(Error::into_message)
        }
    }

    impl<P: Exported> on_presence::Guest for P {
        fn handle(
            topic: String,
            event: on_presence::Event,
            session_id: String,
            user: Option<String>,
            info: String,
            sessions_of_user: u32,
        ) -> Result<(), String> {
            let event = match event {
                on_presence::Event::Joined => Event::Joined,
                on_presence::Event::Left => Event::Left,
            };
            let change = Change { topic, event, session_id, user, info, sessions_of_user };
            P::instance(|p| p.presence(change)).map_err(Error::into_message)
        }
    }
}
