//! Who may come in.

/// What [`Plugin::authenticate`](crate::Plugin::authenticate) answers. Only [`Admit`](Self::Admit) lets the client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer with this HTTP status, 300 to 599; anything else becomes 403. Later plugins are not asked. Headers and
    /// body: [`Session::add_header`](crate::Session::add_header), [`Session::set_body`](crate::Session::set_body).
    Refuse(u16),
    /// Leave it to the next plugin of the chain. After the last one: 401.
    Pass,
    /// Let the client in as this user, or as nobody in particular. Later plugins are not asked. User ids: 1 to 255
    /// bytes; any other refuses.
    Admit(Option<String>),
}

impl Decision {
    /// Let the client in as this user.
    pub fn admit(user: impl Into<String>) -> Self {
        Self::Admit(Some(user.into()))
    }

    /// Let the client in as nobody in particular.
    pub fn admit_anonymous() -> Self {
        Self::Admit(None)
    }
}
