//! The baseline that most would write: tokio-tungstenite, a task for each connection, 4 KiB read buffers, nothing else. The paths are
//! those of the floor; a fan-out goes by tokio's broadcast channel.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast::{self, error::RecvError},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::WebSocketConfig,
    },
};

/// Publications that a slow subscriber may be behind.
const BEHIND: usize = 4096;

pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
        let (publications, _) = broadcast::channel(BEHIND);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(client(stream, publications.clone()));
        }
    })
}

async fn client(stream: TcpStream, publications: broadcast::Sender<Message>) {
    let mut path = String::new();
    // The library's own type for a refusal is large; nobody is refused here.
    #[expect(clippy::result_large_err, reason = "the library asks for this type")]
    let look = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(4 << 10);
    let Ok(socket) = accept_hdr_async_with_config(stream, look, Some(config)).await else { return };
    // Whoever goes away has ended its own connection, and nobody else is concerned.
    let _ = match path.as_str() {
        "/sub" => subscribe(socket, publications.subscribe()).await,
        "/pub" => publish(socket, &publications).await,
        _ => echo(socket).await,
    };
}

type Socket = WebSocketStream<TcpStream>;
type Done = Result<(), tokio_tungstenite::tungstenite::Error>;

async fn echo(mut socket: Socket) -> Done {
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            _ => socket.flush().await?,
        }
    }
    Ok(())
}

async fn publish(mut socket: Socket, publications: &broadcast::Sender<Message>) -> Done {
    while let Some(message) = socket.next().await {
        if let message @ (Message::Text(_) | Message::Binary(_)) = message? {
            // An error means that nobody has subscribed.
            let _ = publications.send(message);
        }
    }
    Ok(())
}

async fn subscribe(mut socket: Socket, mut publications: broadcast::Receiver<Message>) -> Done {
    loop {
        tokio::select! {
            publication = publications.recv() => match publication {
                Ok(publication) => socket.send(publication).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            message = socket.next() => match message {
                Some(message) => drop(message?),
                None => return Ok(()),
            },
        }
    }
}
