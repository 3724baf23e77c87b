//! Which hooks a plugin has, and how each call from the gateway reaches its method.

use crate::{Plugin, Result};

/// Register a plugin: its type, and the hooks that it has.
///
/// `init`, `authenticate`, `session` (both [`opened`](Plugin::opened) and [`closed`](Plugin::closed)), `inbound`,
/// [`batch`](Plugin::batch), `publication`, `broadcast`, `outbound`, `subscription`, `timer`, `reply`, `presence`. Only these are exported, and a
/// hook that is not exported costs nothing. A hook that is written and not named here is never called, in tests either.
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
                $crate::log::panics();
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
    (batch) => {
        $crate::Hook::Batch
    };
    (publication) => {
        $crate::Hook::Publication
    };
    (broadcast) => {
        $crate::Hook::Broadcast
    };
    (outbound) => {
        $crate::Hook::Outbound
    };
    (subscription) => {
        $crate::Hook::Subscription
    };
    (timer) => {
        $crate::Hook::Timer
    };
    (reply) => {
        $crate::Hook::Reply
    };
    (presence) => {
        $crate::Hook::Presence
    };
    ($unknown:ident) => {
        ::core::compile_error!(::core::concat!(
            "there is no hook `",
            ::core::stringify!($unknown),
            "`; hooks: init, authenticate, session, inbound, batch, \
             publication, broadcast, outbound, subscription, timer, reply, presence"
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
    (batch $plugin:ident) => { $crate::bindings::batch::export!($plugin with_types_in $crate::bindings::batch); };
    (publication $plugin:ident) => {
        $crate::bindings::publication::export!($plugin with_types_in $crate::bindings::publication);
    };
    (broadcast $plugin:ident) => {
        $crate::bindings::broadcast::export!($plugin with_types_in $crate::bindings::broadcast);
    };
    (outbound $plugin:ident) => {
        $crate::bindings::outbound::export!($plugin with_types_in $crate::bindings::outbound);
    };
    (subscription $plugin:ident) => {
        $crate::bindings::subscription::export!($plugin with_types_in $crate::bindings::subscription);
    };
    (timer $plugin:ident) => { $crate::bindings::timer::export!($plugin with_types_in $crate::bindings::timer); };
    (reply $plugin:ident) => { $crate::bindings::reply::export!($plugin with_types_in $crate::bindings::reply); };
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
    /// [`Plugin::batch`]
    Batch,
    /// [`Plugin::publication`]
    Publication,
    /// [`Plugin::broadcast`]
    Broadcast,
    /// [`Plugin::outbound`]
    Outbound,
    /// [`Plugin::subscription`]
    Subscription,
    /// [`Plugin::timer`]
    Timer,
    /// [`Plugin::reply`]
    Reply,
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
