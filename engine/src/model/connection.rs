//! Names of connections and shards, and how a connection ends.

/// One shard of the engine: a pinned core with its own listeners, segments and connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One connection of a shard, in or out. The slot is reused under a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conn {
    pub slot: u32,
    pub generation: u32,
}

/// How a connection ended, as far as we can know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer's end was read: EOF or reset. Its side no longer counts the connection.
    ByPeer,
    /// We closed first and never saw the peer's end: it may still count the connection.
    Unknown,
}

/// How to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Send what is queued, then our end, then wait (bounded) for the peer's.
    Graceful,
    /// At once; queued bytes are dropped.
    Abort,
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The peer answered with a refusal or the network with "unreachable": nobody counts it.
    Refused,
    /// No answer in time: the peer may yet see it, so its permit is quarantined.
    TimedOut,
    /// This machine lacks something: ports, descriptors, memory.
    Local,
    /// The address to connect from is not one of this machine.
    Source,
}

/// What a finished handshake established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    pub version: &'static str,
    pub cipher: &'static str,
}

/// Why a handshake failed; the text goes to logs and deferral reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(pub Box<str>);
