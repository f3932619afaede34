//! The driver against the real kernel: loopback, free ports, temporary files.

mod disk;
mod network;
mod secure;
mod world;
