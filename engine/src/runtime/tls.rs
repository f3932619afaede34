//! TLS towards mail hosts: a handshake as steps over bytes, and the stream that comes of it.
//!
//! Opportunistic (RFC 7435): no certificate is verified. Without a policy (DANE, MTA-STS) the
//! alternative to an unauthenticated session is none at all, and a mail host's certificate is as
//! often as not made out to another name. It shuts out the listener, not the impostor.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
};

use crate::model::connection::{TlsError, TlsFacts};

/// Sessions kept for resumption, all hosts together. rustls keeps up to 8 tickets per host, so
/// this is 1024 hosts, at a few KiB each.
const SESSIONS_MAX: usize = 8192;

/// Bytes a peer may send before the handshake is done: far above any certificate chain in use,
/// and the bound of what a hostile one costs.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 256 * 1024;

/// How we speak TLS as a client; one per process, so that all shards share its sessions.
#[derive(Clone, Debug)]
pub(super) struct TlsClient {
    named: Arc<ClientConfig>,
    /// For hosts whose name cannot be sent: no session is kept, because it would have no owner.
    nameless: Arc<ClientConfig>,
}

/// A handshake under way; owns no socket and may move between threads.
#[derive(Debug)]
pub(super) struct Handshake {
    connection: Box<ClientConnection>,
    received_bytes: usize,
}

/// What a step of a handshake led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More bytes of the peer are needed.
    NeedsInput(Handshake),
    /// The stream is ready. `unopened` came behind the handshake: pass it to [`TlsStream::open`]
    /// first, even if it is empty, since plaintext may already wait inside the stream.
    Done { stream: TlsStream, facts: TlsFacts, unopened: Vec<u8> },
    /// No TLS with this peer now; the alert to send is among the outgoing bytes.
    Failed(TlsError),
}

/// An established session; lives on its shard.
#[derive(Debug)]
pub(super) struct TlsStream {
    connection: Box<ClientConnection>,
}

/// Whether the peer may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Open,
    /// Its close_notify was read: what came before is complete. Anything behind it is ignored.
    PeerClosed,
}

impl TlsClient {
    /// # Errors
    /// The crypto library offers no usable versions, which is a fault of the build.
    pub(super) fn opportunistic() -> Result<Self, TlsError> {
        let named = config(Resumption::in_memory_sessions(SESSIONS_MAX))?;
        let nameless = config(Resumption::disabled())?;
        Ok(Self { named: Arc::new(named), nameless: Arc::new(nameless) })
    }

    /// Begins a handshake with the host of this name. It is sent as SNI, unless it is an address
    /// or no host name at all. Makes keys: not for a shard.
    ///
    /// # Errors
    /// The crypto library failed, for instance for lack of randomness.
    pub(super) fn begin(&self, name: &str) -> Result<Handshake, TlsError> {
        let (config, name) = match ServerName::try_from(name) {
            Ok(name) => (&self.named, name.to_owned()),
            Err(_) => (&self.nameless, ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        };
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(tls_error)?;
        Ok(Handshake { connection: Box::new(connection), received_bytes: 0 })
    }
}

impl Handshake {
    /// Takes what the peer sent (nothing, at the start) and appends what to send it. Costs up to
    /// some 0.3 ms: not for a shard.
    #[must_use]
    pub(super) fn advance(mut self, wire: &[u8], outgoing: &mut Vec<u8>) -> Progress {
        self.received_bytes = self.received_bytes.saturating_add(wire.len());
        if self.received_bytes > HANDSHAKE_BYTES_MAX {
            return Progress::Failed(TlsError("the handshake is too long".into()));
        }
        let taken = self.take(wire);
        flush(&mut self.connection, outgoing);
        match taken {
            Err(error) => Progress::Failed(tls_error(error)),
            Ok(_) if self.connection.is_handshaking() => Progress::NeedsInput(self),
            Ok(rest) => {
                let facts = facts(&self.connection);
                let stream = TlsStream { connection: self.connection };
                Progress::Done { stream, facts, unopened: rest.to_vec() }
            }
        }
    }

    /// Reads until the handshake is done or the bytes are used up; returns what is left.
    fn take<'a>(&mut self, wire: &'a [u8]) -> Result<&'a [u8], Error> {
        let mut rest = wire;
        while !rest.is_empty() && self.connection.is_handshaking() {
            let read = self.connection.read_tls(&mut rest);
            self.connection.process_new_packets()?;
            if matches!(read, Ok(0) | Err(_)) {
                return Err(Error::General("the peer closed during the handshake".into()));
            }
        }
        Ok(rest)
    }
}

impl TlsStream {
    /// Decrypts what came off the wire and appends it to `plain`. An answer that TLS itself owes
    /// (a key update) leaves with the next [`TlsStream::seal`].
    ///
    /// # Errors
    /// The peer broke the protocol, or somebody changed its bytes: send what
    /// [`TlsStream::close_notify`] gives, then abort. Plaintext appended before is genuine.
    pub(super) fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<Opened, TlsError> {
        let mut rest = wire;
        loop {
            let result = self.connection.process_new_packets();
            let waiting = result.as_ref().map_or(0, rustls::IoState::plaintext_bytes_to_read);
            drain(&mut self.connection, waiting, plain)?;
            if result.map_err(tls_error)?.peer_has_closed() {
                return Ok(Opened::PeerClosed);
            }
            if rest.is_empty() {
                return Ok(Opened::Open);
            }
            let read = self.connection.read_tls(&mut rest);
            read.map_err(|error| TlsError(error.to_string().into()))?;
        }
    }

    /// Encrypts `plain` and appends the records to `wire`.
    ///
    /// # Errors
    /// The session can send no more (its end was sent, or its keys are used up).
    pub(super) fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut rest = plain;
        while !rest.is_empty() {
            // rustls takes up to its buffer's limit at a time, and we empty the buffer each time.
            let taken = self.connection.writer().write(rest).unwrap_or(0);
            if taken == 0 {
                return Err(TlsError("the session takes no more data".into()));
            }
            rest = &rest[taken..];
            flush(&mut self.connection, wire);
        }
        flush(&mut self.connection, wire);
        Ok(())
    }

    /// Appends our close_notify (or the alert that a failed [`TlsStream::open`] left) to `wire`.
    pub(super) fn close_notify(&mut self, wire: &mut Vec<u8>) {
        self.connection.send_close_notify();
        flush(&mut self.connection, wire);
    }
}

fn config(resumption: Resumption) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Unverified::new(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = resumption;
    Ok(config)
}

fn facts(connection: &ClientConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let suite = connection.negotiated_cipher_suite();
    let cipher = suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
    TlsFacts { version, cipher }
}

/// Moves all that waits to be sent behind `wire`; a `Vec` takes everything.
fn flush(connection: &mut ClientConnection, wire: &mut Vec<u8>) {
    while connection.wants_write() {
        if matches!(connection.write_tls(wire), Ok(0) | Err(_)) {
            return;
        }
    }
}

fn drain(
    connection: &mut ClientConnection,
    bytes: usize,
    plain: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let before = plain.len();
    plain.resize(before + bytes, 0);
    let read = connection.reader().read_exact(&mut plain[before..]);
    read.map_err(|error| TlsError(error.to_string().into()))
}

fn tls_error(error: Error) -> TlsError {
    TlsError(error.to_string().into())
}

/// Accepts any certificate, see the head of this file.
#[derive(Debug)]
struct Unverified {
    schemes: Vec<SignatureScheme>,
}

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        let mut schemes = provider.signature_verification_algorithms.supported_schemes();
        // Old hosts sign with nothing better; a weak signature loses nothing that is not verified.
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        Self { schemes }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;

    /// A server with a certificate of its own making; the test carries the bytes.
    pub(in crate::runtime) struct Server(pub(in crate::runtime) ServerConnection);

    pub(in crate::runtime) fn server_config(
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["another.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        // A server that speaks before it has read our Finished.
        config.send_half_rtt_data = true;
        Arc::new(config)
    }

    impl Server {
        pub(in crate::runtime) fn new(config: &Arc<ServerConfig>) -> Self {
            Self(ServerConnection::new(Arc::clone(config)).unwrap())
        }

        /// Takes client bytes; returns what the server sends.
        pub(in crate::runtime) fn carry(&mut self, mut wire: &[u8]) -> Vec<u8> {
            while !wire.is_empty() && self.0.read_tls(&mut wire).unwrap() > 0 {
                self.0.process_new_packets().unwrap();
            }
            let mut out = Vec::new();
            while self.0.wants_write() {
                self.0.write_tls(&mut out).unwrap();
            }
            out
        }

        pub(in crate::runtime) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
            let mut out = Vec::new();
            for chunk in plain.chunks(16 * 1024) {
                self.0.writer().write_all(chunk).unwrap();
                out.extend(self.carry(b""));
            }
            out
        }

        pub(in crate::runtime) fn heard(&mut self, wire: &[u8]) -> Vec<u8> {
            let mut plain = Vec::new();
            for piece in wire.chunks(1024) {
                self.carry(piece);
                let mut more = Vec::new();
                drop(self.0.reader().read_to_end(&mut more));
                plain.extend(more);
            }
            plain
        }
    }

    const VERSIONS: [(&SupportedProtocolVersion, &str); 2] =
        [(&rustls::version::TLS13, "TLSv1.3"), (&rustls::version::TLS12, "TLSv1.2")];

    /// Handshakes with the server's bytes cut into pieces of `piece`.
    fn connect(client: &TlsClient, server: &mut Server, piece: usize) -> (TlsStream, TlsFacts) {
        let mut outgoing = Vec::new();
        let begun = client.begin("mx.example.com").unwrap().advance(b"", &mut outgoing);
        let Progress::NeedsInput(mut handshake) = begun else { panic!("{begun:?}") };
        for _ in 0..10 {
            let incoming = server.carry(&std::mem::take(&mut outgoing));
            let mut pieces = incoming.chunks(piece);
            while let Some(bytes) = pieces.next() {
                match handshake.advance(bytes, &mut outgoing) {
                    Progress::NeedsInput(next) => handshake = next,
                    Progress::Done { mut stream, facts, mut unopened } => {
                        unopened.extend(pieces.flatten());
                        unopened.extend(server.carry(&outgoing));
                        assert_eq!(stream.open(&unopened, &mut Vec::new()), Ok(Opened::Open));
                        return (stream, facts);
                    }
                    Progress::Failed(error) => panic!("{error:?}"),
                }
            }
        }
        panic!("no handshake in ten rounds");
    }

    #[test]
    fn a_handshake_may_come_in_pieces_of_any_size() {
        let client = TlsClient::opportunistic().unwrap();
        for (version, name) in VERSIONS {
            let config = server_config(version);
            for piece in [1, 2, 3, 5, 7, 64, 1000, usize::MAX] {
                let mut server = Server::new(&config);
                let (_, facts) = connect(&client, &mut server, piece);
                assert_eq!(facts.version, name);
                assert!(facts.cipher.starts_with("TLS"), "{facts:?}");
                assert!(!server.0.is_handshaking());
                assert_eq!(server.0.server_name(), Some("mx.example.com"));
            }
        }
    }

    #[test]
    fn data_goes_both_ways_whole() {
        let client = TlsClient::opportunistic().unwrap();
        let long: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for (version, _) in VERSIONS {
            let mut server = Server::new(&server_config(version));
            let (mut stream, _) = connect(&client, &mut server, usize::MAX);
            let mut wire = Vec::new();
            stream.seal(&long, &mut wire).unwrap();
            assert_eq!(server.heard(&wire), long);
            for piece in [1, 1000, usize::MAX] {
                let wire = server.say(&long);
                let mut plain = Vec::new();
                for bytes in wire.chunks(piece) {
                    assert_eq!(stream.open(bytes, &mut plain), Ok(Opened::Open));
                }
                assert!(plain == long, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_follows_the_finished_flight_is_not_lost() {
        // TLS 1.3: the server's own Finished is out, so it may speak before it has read ours.
        let client = TlsClient::opportunistic().unwrap();
        let config = server_config(&rustls::version::TLS13);
        let said: Vec<u8> = (0..100_000u32).map(|n| (n % 7) as u8).collect();
        for piece in [1, 13, 5000, usize::MAX] {
            let mut server = Server::new(&config);
            let mut outgoing = Vec::new();
            let begun = client.begin("mx.example.com").unwrap().advance(b"", &mut outgoing);
            let Progress::NeedsInput(mut handshake) = begun else { panic!("{begun:?}") };
            let mut incoming = server.carry(&outgoing);
            incoming.extend(server.say(&said));
            let mut pieces = incoming.chunks(piece);
            let (mut stream, mut unopened) = loop {
                let mut sent = Vec::new();
                match handshake.advance(pieces.next().unwrap(), &mut sent) {
                    Progress::NeedsInput(next) => handshake = next,
                    Progress::Done { stream, unopened, .. } => {
                        server.carry(&sent);
                        break (stream, unopened);
                    }
                    Progress::Failed(error) => panic!("{error:?}"),
                }
            };
            unopened.extend(pieces.flatten());
            unopened.extend(server.carry(b""));
            let mut plain = Vec::new();
            assert_eq!(stream.open(&unopened, &mut plain), Ok(Opened::Open));
            assert!(plain == said, "pieces of {piece}: {} bytes", plain.len());
        }
    }

    #[test]
    fn an_end_is_told_from_a_cut() {
        let client = TlsClient::opportunistic().unwrap();
        let mut server = Server::new(&server_config(&rustls::version::TLS13));
        let (mut stream, _) = connect(&client, &mut server, usize::MAX);
        let mut wire = server.say(b"221 bye");
        server.0.send_close_notify();
        wire.extend(server.carry(b""));
        wire.extend(b"garbage behind the end");
        let mut plain = Vec::new();
        assert_eq!(stream.open(&wire, &mut plain), Ok(Opened::PeerClosed));
        assert_eq!(plain, b"221 bye");
        assert_eq!(stream.open(b"more", &mut plain), Ok(Opened::PeerClosed));
        let mut wire = Vec::new();
        stream.close_notify(&mut wire);
        server.carry(&wire);
        assert!(server.0.process_new_packets().unwrap().peer_has_closed());
    }

    #[test]
    fn what_is_no_tls_fails_at_once() {
        let client = TlsClient::opportunistic().unwrap();
        for garbage in [&b"454 4.7.0 TLS not available\r\n"[..], &[0; 64], &[0xff; 64]] {
            let begun = client.begin("mx.example.com").unwrap().advance(b"", &mut Vec::new());
            let Progress::NeedsInput(handshake) = begun else { panic!("{begun:?}") };
            let progress = handshake.advance(garbage, &mut Vec::new());
            assert!(matches!(progress, Progress::Failed(_)), "{progress:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_and_not_data() {
        let client = TlsClient::opportunistic().unwrap();
        let mut server = Server::new(&server_config(&rustls::version::TLS13));
        let (mut stream, _) = connect(&client, &mut server, usize::MAX);
        let mut wire = server.say(b"250 ok");
        *wire.last_mut().unwrap() ^= 1;
        let mut plain = Vec::new();
        assert!(stream.open(&wire, &mut plain).is_err());
        assert!(plain.is_empty());
    }

    #[test]
    fn an_address_or_an_odd_name_goes_without_sni() {
        let client = TlsClient::opportunistic().unwrap();
        for name in ["192.0.2.1", "2001:db8::1", "not a name", ""] {
            let mut outgoing = Vec::new();
            let begun = client.begin(name).unwrap().advance(b"", &mut outgoing);
            assert!(matches!(begun, Progress::NeedsInput(_)));
            let mut server = Server::new(&server_config(&rustls::version::TLS13));
            server.carry(&outgoing);
            assert_eq!(server.0.server_name(), None, "{name}");
        }
    }

    #[test]
    fn a_second_session_resumes_the_first() {
        for (version, name) in VERSIONS {
            let client = TlsClient::opportunistic().unwrap();
            let config = server_config(version);
            for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
                let (stream, _) = connect(&client, &mut Server::new(&config), 100);
                assert_eq!(stream.connection.handshake_kind(), Some(kind), "{name}");
            }
        }
    }

    #[test]
    fn an_endless_handshake_is_cut_off() {
        let client = TlsClient::opportunistic().unwrap();
        let begun = client.begin("mx.example.com").unwrap().advance(b"", &mut Vec::new());
        let Progress::NeedsInput(handshake) = begun else { panic!("{begun:?}") };
        let flood = vec![0x16; HANDSHAKE_BYTES_MAX + 1];
        assert!(matches!(handshake.advance(&flood, &mut Vec::new()), Progress::Failed(_)));
    }
}
