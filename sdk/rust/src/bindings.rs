//! What wit-bindgen makes of the interface: one module for all that a plugin may import, and one for each hook, so that
//! a plugin exports the hooks that it has and no others. Not for plugin authors; `export!` names it.

// The canonical ABI is raw pointers; all of it is generated.
#![allow(unsafe_code, unreachable_pub, missing_docs)]

/// The host functions. Whatever a plugin does not call is not imported by its module.
pub(crate) mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        world: "imports",
        generate_all,
        with: { "tidegate:plugin/types@0.1.0": crate::types },
    });
}

macro_rules! hooks {
    ($($module:ident = $world:literal, with $with:tt;)+) => {$(
        pub mod $module {
            wit_bindgen::generate!({ path: "../wit", world: $world, pub_export_macro: true, with: $with });
        }
    )+};
}

hooks! {
    init = "init-hook", with {};
    authenticate = "authenticate-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    session = "session-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    inbound = "inbound-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    batch = "batch-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    publication = "publication-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    broadcast = "broadcast-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    outbound = "outbound-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    subscription = "subscription-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    timer = "timer-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    reply = "reply-hook", with { "tidegate:plugin/types@0.1.0": crate::types };
    presence = "presence-hook", with {};
}
