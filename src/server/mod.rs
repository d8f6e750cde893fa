//! The edge: listening sockets, the admin listener, and how the process stops.
//!
//! pingora-core owns the sockets and their accept loops; every accepted stream is handed to hyper, which owns HTTP.
//! Only this module and `app` know pingora.

pub mod admin;
pub mod drain;
pub mod listener;
