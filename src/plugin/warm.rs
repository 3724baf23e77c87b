//! An instance that stays with a thread for a turn: a client's messages that were read together need not each go to the
//! pool.

use std::sync::Arc;

use super::event::Hook;
use super::generation::Generation;
use super::instance::Instance;

/// None of it is kept from one turn to the next; what is dropped is given back.
#[derive(Default)]
pub struct Warm(Option<Held>);

struct Held {
    generation: Arc<Generation>,
    /// None while it is called.
    instance: Option<Box<Instance>>,
    /// Calls of `inbound` and of `batch` that are not in the metrics yet.
    calls: (u64, u64),
}

impl Warm {
    /// The instance, if it is of this generation, for a call of `inbound` or of `batch`.
    pub fn take(&mut self, generation: &Arc<Generation>, hook: Hook) -> Option<Box<Instance>> {
        let held = self.0.as_mut().filter(|held| Arc::ptr_eq(&held.generation, generation))?;
        let instance = held.instance.take()?;
        let (inbound, batch) = &mut held.calls;
        *if hook == Hook::Batch { batch } else { inbound } += 1;
        Some(instance)
    }

    /// For the next call of the turn.
    pub fn keep(&mut self, generation: &Arc<Generation>, instance: Box<Instance>) {
        match &mut self.0 {
            Some(held) if Arc::ptr_eq(&held.generation, generation) => held.instance = Some(instance),
            _ => {
                self.give_back();
                self.0 = Some(Held { generation: generation.clone(), instance: Some(instance), calls: (0, 0) });
            }
        }
    }

    /// Others may have it.
    pub fn give_back(&mut self) {
        if let Some(Held { generation, instance, calls }) = self.0.take() {
            generation.take_back(instance, calls);
        }
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.give_back();
    }
}
