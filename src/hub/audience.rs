//! The subscribers of one route, as the hub sees them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::BatchConfig;
use crate::message::{Message, Publication};

/// What a route's subscribers get of a publication.
#[derive(Debug)]
pub enum Shaped {
    Message(Message),
    Nothing,
    /// It could not be made: they must learn that they lost something.
    Lost,
}

/// Stands for the sessions of a route. Sessions of different routes may be subscribed to one topic.
pub trait Audience: Send + Sync {
    /// Whether they get something else than what was published, or get it one by one.
    fn is_special(&self) -> bool;

    /// Whether each delivery is handed to its session, which decides what becomes of it.
    fn one_by_one(&self) -> bool;

    /// How long their deliveries may be gathered.
    fn window(&self) -> Option<BatchConfig>;

    /// What they all get of a publication, which has its position by now.
    fn shape<'a>(&'a self, publication: &'a Arc<Publication>) -> Pin<Box<dyn Future<Output = Shaped> + Send + 'a>>;
}
