//! The gateway as its users meet it: the real binary, real sockets, real guests. One file for each behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod auth;
mod canary;
mod chat;
mod chat_page;
mod cli;
mod cluster;
mod cluster_faults;
mod cluster_frozen;
mod cluster_nodes;
mod cluster_partition;
mod cluster_presence;
mod cluster_sentinel;
mod cluster_sharded;
mod cluster_soak;
mod cluster_users;
mod compression;
mod compression_peers;
mod configuration;
mod drain;
mod effects;
mod floors;
mod frames;
mod handshake;
mod hooks;
mod hostile;
mod http;
mod http_out;
mod languages;
mod limits;
mod long_poll;
mod plugin_new;
mod plugin_tools;
mod quotas;
mod record;
mod reload;
mod rollback;
mod runaway;
mod scenarios;
mod shadow;
mod slow;
mod sse;
mod support;
mod upstream;
