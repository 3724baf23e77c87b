//! Sessions that always have something to do have their turns in order, however many they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;

use crate::support::client::{Raw, TEXT, frame};
use crate::support::{Gateway, tidegate};

const CONFIG: &str = "[[route]]\nname = \"core\"\npath = \"/core\"\nplugins = []\necho = true\n";

/// More than a worker's own queue has room for.
const CLIENTS: usize = 1_000;
const TOGETHER: usize = 16;

#[test]
fn nobody_waits_ten_turns_for_one() {
    // The clients have their turns in order too: see `cli::runtime`.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).global_queue_interval(1).enable_all().build().unwrap();
    runtime.block_on(turns());
}

async fn turns() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let mut command = tidegate(directory.path());
    command.env("TOKIO_WORKER_THREADS", "1");
    let gateway = Gateway::run_as(command, directory.path(), "127.0.0.1").await;
    let all = Arc::new(AtomicUsize::new(0));
    let sent: Arc<[u8]> = frame(TEXT, b"again").repeat(TOGETHER).into();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Raw::connect(gateway.address(), "/core").await);
    }
    let talking = clients.into_iter().map(|mut client| {
        let (all, sent) = (all.clone(), sent.clone());
        tokio::spawn(async move {
            // How many rounds of all clients went by during each of this one's, until there were a hundred for each.
            let mut waited = Vec::new();
            loop {
                let before = all.load(Ordering::Relaxed);
                if before >= CLIENTS * 100 {
                    return waited;
                }
                client.send(&sent).await;
                // A header of two bytes and five letters, so many times.
                let mut answers = [0; 7 * TOGETHER];
                client.0.read_exact(&mut answers).await.expect("closed");
                waited.push(all.fetch_add(1, Ordering::Relaxed) - before);
            }
        })
    });
    let mut waited = Vec::new();
    for talk in talking.collect::<Vec<_>>() {
        waited.extend(talk.await.unwrap());
    }
    waited.sort_unstable();
    let most = waited[waited.len() * 99 / 100];
    // In order, everybody else has one round meanwhile, and some have two; a busy machine adds some. Out of order it is ten.
    assert!(most <= 5 * CLIENTS, "one in a hundred waited while others had {most} rounds, {CLIENTS} clients");
}
