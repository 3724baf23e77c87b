//! Bytes ↔ messages, for each way that a client can connect, and nothing else.

pub mod websocket;
