//! One loaded version of a plugin: its code, its settings, and a pool of its instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::call::{Answer, Call, Verdict};
use super::encode::Form;
use super::event::{Event, Hook, Patience};
use super::failure::{Failure, Why};
use super::health::{Counts, Tally};
use super::host::{Context, Quota};
use super::instance::Instance;
use super::lane::{self, Pace};
use super::template::Template;
use super::told::Told;
use super::warm::Warm;
use crate::message::{Message, MessageRef};
use crate::metrics::{CALL_SAMPLE, Metrics};

/// One version of a plugin. Calls that have begun on it end on it.
pub struct Generation {
    pub context: Arc<Context>,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    pub form: Form,
    /// The file's size, in bytes.
    pub size: usize,
    pub imports: Vec<String>,
    template: Template,
    /// The most recently used last: what is warm is used first.
    #[allow(
        clippy::vec_box,
        reason = "an instance is some hundred bytes, and moves in and out of here with each call"
    )]
    idle: Mutex<Vec<Box<Instance>>>,
    live: AtomicUsize,
    free: tokio::sync::Notify,
    counters: [HookCounters; Hook::ALL.len()],
    instances: IntGauge,
    pace: Pace,
    tally: Tally,
    metrics: Arc<Metrics>,
    /// An instance may stay with a thread for a turn: there are as many as threads.
    stays: bool,
}

struct HookCounters {
    calls: IntCounter,
    seconds: Histogram,
    count: AtomicU32,
}

impl Generation {
    /// Makes the first instance, whose `init` decides for the generation.
    pub async fn new(
        template: Template,
        imports: Vec<String>,
        (form, size, hash): (Form, usize, [u8; 32]),
        context: Arc<Context>,
    ) -> anyhow::Result<Self> {
        let metrics = context.node.metrics.clone();
        let name = &*context.label();
        let counters = Hook::ALL.map(|hook| HookCounters {
            calls: metrics.calls.with_label_values(&[name, hook.name()]),
            seconds: metrics.call_seconds.with_label_values(&[name, hook.name()]),
            count: AtomicU32::new(0),
        });
        let instances = metrics.instances.with_label_values(&[name]);
        let stays = context.limits.instances >= tokio::runtime::Handle::current().metrics().num_workers();
        let generation = Self {
            hash,
            form,
            size,
            imports,
            template,
            idle: Mutex::default(),
            live: AtomicUsize::new(0),
            free: tokio::sync::Notify::new(),
            counters,
            instances,
            pace: Pace::default(),
            tally: Tally::default(),
            metrics,
            stays,
            context,
        };
        let made = generation.make().await.map(drop);
        made.map_err(|why| anyhow::anyhow!("its first instance cannot serve: {why}"))?;
        Ok(generation)
    }

    pub fn has(&self, hook: Hook) -> bool {
        self.template.has(hook)
    }

    /// Whether a call may not be over when it was polled once.
    pub fn waits(&self) -> bool {
        self.template.waits || self.pace.is_slow()
    }

    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Instances now, idle and in calls.
    pub fn instances(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Calls a hook on one of the instances. The event is back in its place afterwards, whatever happened.
    pub async fn call(self: &Arc<Self>, call: Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Failure> {
        let hook = call.hook();
        let counters = &self.counters[hook as usize];
        counters.calls.inc();
        let sampled = counters.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALL_SAMPLE);
        let begun = sampled.then(Instant::now);
        let told = Told::begin(&self.context, &call, event);
        let can_wait = event.as_ref().is_none_or(|event| event.patience == Patience::Waits);
        let result = if self.pace.is_slow() && can_wait {
            self.call_aside(call, event).await
        } else {
            self.call_here(&call, event).await
        };
        if let Some(told) = told {
            told.end(&self.context, &result, event);
        }
        if let Some(begun) = begun {
            counters.seconds.observe(begun.elapsed().as_secs_f64());
        }
        result.map_err(|why| self.failed(hook, why))
    }

    /// Calls `inbound` without a future around it. None: this call has to go the usual way, and nothing has happened.
    pub fn inbound_now(
        self: &Arc<Self>,
        session: u64,
        message: MessageRef<'_>,
        event: &mut Option<Box<Event>>,
        warm: &mut Warm,
    ) -> Option<Result<Verdict, Failure>> {
        self.call_now(Hook::Inbound, warm, |instance| instance.inbound_now(session, message, event))
    }

    /// The same for `batch`, which has no other way: the messages go to `inbound` one by one then.
    pub fn batch_now(
        self: &Arc<Self>,
        session: u64,
        messages: &[MessageRef<'_>],
        event: &mut Option<Box<Event>>,
        warm: &mut Warm,
    ) -> Option<Result<Vec<Verdict>, Failure>> {
        self.call_now(Hook::Batch, warm, |instance| instance.batch_now(session, messages, event))
    }

    fn call_now<T>(
        self: &Arc<Self>,
        hook: Hook,
        warm: &mut Warm,
        call: impl FnOnce(&mut Instance) -> Result<T, Why>,
    ) -> Option<Result<T, Failure>> {
        if self.waits() || self.context.node.tap.is_some() {
            return None;
        }
        let counters = &self.counters[hook as usize];
        let instance = match warm.take(self, hook) {
            Some(instance) => instance,
            None => {
                let instance = self.idle.lock().pop()?;
                counters.calls.inc();
                instance
            }
        };
        let mut lease = Lease { generation: self, instance: Some(instance) };
        let sampled = counters.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALL_SAMPLE);
        let begun = sampled.then(Instant::now);
        let instance = lease.instance.as_mut()?;
        let answer = call(instance);
        self.note(hook, instance.was_slow());
        if let Some(begun) = begun {
            counters.seconds.observe(begun.elapsed().as_secs_f64());
        }
        if self.stays && instance.is_good() {
            warm.keep(self, lease.into_instance()?);
        }
        Some(answer.map_err(|why| self.failed(hook, why)))
    }

    /// An instance that has stayed with a thread, and how often `inbound` and `batch` were called meanwhile.
    pub fn take_back(&self, instance: Option<Box<Instance>>, (inbound, batch): (u64, u64)) {
        self.counters[Hook::Inbound as usize].calls.inc_by(inbound);
        self.counters[Hook::Batch as usize].calls.inc_by(batch);
        // One that is gone was counted as lost then.
        if let Some(instance) = instance {
            self.idle.lock().push(instance);
        }
    }

    fn note(&self, hook: Hook, was_slow: bool) {
        if self.pace.note(was_slow) {
            tracing::warn!(
                plugin = &*self.context.name,
                generation = self.context.generation,
                hook = hook.name(),
                "slow: its calls are made on threads of low priority from now on, until they are quick again"
            );
        }
    }

    async fn call_here(&self, call: &Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Why> {
        let mut lease = self.take().await?;
        let Some(instance) = &mut lease.instance else { return Err(Why::Busy) };
        let answer = instance.call(call, event).await;
        self.note(call.hook(), instance.was_slow());
        answer
    }

    /// On a thread of low priority, where a plugin that takes its time takes nobody else's.
    async fn call_aside(self: &Arc<Self>, call: Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Why> {
        let (generation, call, mut taken) = (self.clone(), call.into_owned(), event.take());
        let called = lane::spawn(async move {
            let result = generation.call_here(&call, &mut taken).await;
            (result, taken)
        });
        match called.await {
            Ok((result, taken)) => {
                *event = taken;
                result
            }
            Err(_) => Err(Why::Instance("its call was broken off".to_owned())),
        }
    }

    /// What a plugin puts in a message's place counts towards its output.
    pub fn replacement(&self, hook: Hook, message: Message) -> Result<Message, Failure> {
        if message.len() > self.context.limits.output.0 {
            return Err(self.failed(hook, Why::Quota(Quota::Output)));
        }
        Ok(message)
    }

    /// What its calls have come to so far.
    pub fn counts(&self) -> Counts {
        self.tally.counts(std::array::from_fn(|hook| self.counters[hook].count.load(Ordering::Relaxed)))
    }

    /// A handshake was not admitted.
    pub fn refused(&self) {
        self.tally.refused();
    }

    /// A call that came to nothing.
    pub fn failed(&self, hook: Hook, why: Why) -> Failure {
        self.tally.failed(hook, &why);
        let plugin = &*self.context.label();
        self.metrics.call_failures.with_label_values(&[plugin, hook.name(), why.label()]).inc();
        Failure { plugin: plugin.into(), generation: self.context.generation, hook, why }
    }

    async fn take(&self) -> Result<Lease<'_>, Why> {
        loop {
            let freed = self.free.notified();
            if let Some(instance) = self.idle.lock().pop() {
                return Ok(Lease { generation: self, instance: Some(instance) });
            }
            if self.live.load(Ordering::Relaxed) < self.context.limits.instances.max(1) {
                return self.make().await;
            }
            if !self.waits() {
                return Err(Why::Busy);
            }
            tokio::time::timeout(self.context.limits.wall.0, freed).await.map_err(|_| Why::Busy)?;
        }
    }

    async fn make(&self) -> Result<Lease<'_>, Why> {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.instances.inc();
        let mut lease = Lease { generation: self, instance: None };
        // Boxed: a generation's calls need not carry the room for making an instance, which they seldom do.
        lease.instance = Some(Box::new(Box::pin(Instance::new(&self.template, &self.context)).await?));
        Ok(lease)
    }

    fn lost(&self, instances: usize) {
        self.live.fetch_sub(instances, Ordering::Relaxed);
        self.instances.sub(instances as i64);
    }
}

/// An instance that is out of the pool, or one that is being made. It is given back or counted as lost however the call
/// ends, also when nobody waits for its end any more.
struct Lease<'a> {
    generation: &'a Generation,
    instance: Option<Box<Instance>>,
}

impl Lease<'_> {
    /// Out of the pool for longer than a call.
    fn into_instance(mut self) -> Option<Box<Instance>> {
        let instance = self.instance.take();
        std::mem::forget(self);
        instance
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        match self.instance.take().filter(|instance| instance.is_good()) {
            Some(instance) => self.generation.idle.lock().push(instance),
            None => self.generation.lost(1),
        }
        if self.generation.waits() {
            self.generation.free.notify_one();
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let live = *self.live.get_mut();
        self.lost(live);
    }
}
