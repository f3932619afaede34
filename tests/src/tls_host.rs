//! A mail host that speaks TLS, well or badly, and keeps what was said to it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A client that is silent for so long has forgotten us.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How the host treats one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// STARTTLS works.
    Secures,
    /// STARTTLS is offered; the ClientHello is answered with what is no TLS.
    BreaksHandshake,
    /// Behind the 220 to STARTTLS stands another reply, in clear; then the handshake works.
    InjectsInClear,
}

/// Something that a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Connections count from 0.
    pub connection: usize,
    pub is_secured: bool,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A command line without its end.
    Command(String),
    /// The text of a message, dots taken off.
    Mail(Vec<u8>),
}

/// A running host.
pub struct TlsHost {
    address: SocketAddr,
    incoming: Receiver<Heard>,
    heard: Vec<Heard>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TlsHost {
    /// Shows connection `n` the face `n`, and the last one to all that follow.
    #[must_use]
    pub fn start(faces: &[Face]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, incoming) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let (faces, over) = (faces.to_vec(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || accept_all(&listener, &faces, &sender, &over));
        Self { address, incoming, heard: Vec::new(), is_over, thread: Some(thread) }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that was said so far.
    pub fn heard(&mut self) -> &[Heard] {
        self.heard.extend(self.incoming.try_iter());
        &self.heard
    }

    /// The messages so far: connection, whether it was secured, text.
    pub fn mails(&mut self) -> Vec<(usize, bool, Vec<u8>)> {
        let mail = |heard: &Heard| match &heard.what {
            What::Mail(text) => Some((heard.connection, heard.is_secured, text.clone())),
            What::Command(_) => None,
        };
        self.heard().iter().filter_map(mail).collect()
    }

    /// The commands of a connection so far, and whether each came secured.
    pub fn commands(&mut self, connection: usize) -> Vec<(bool, String)> {
        let of_it = |heard: &&Heard| heard.connection == connection;
        let command = |heard: &Heard| match &heard.what {
            What::Command(line) => Some((heard.is_secured, line.clone())),
            What::Mail(_) => None,
        };
        self.heard().iter().filter(of_it).filter_map(command).collect()
    }
}

impl Drop for TlsHost {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the accept; conversations end with their clients.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn accept_all(
    listener: &TcpListener,
    faces: &[Face],
    heard: &Sender<Heard>,
    is_over: &Arc<AtomicBool>,
) {
    let config = server_config();
    for (connection, stream) in listener.incoming().enumerate() {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let face = faces[connection.min(faces.len() - 1)];
        let (heard, config) = (heard.clone(), Arc::clone(&config));
        let conversation = Conversation { connection, face, heard, config };
        // A connection that breaks is the client's way of leaving.
        std::thread::spawn(move || stream.and_then(|stream| conversation.converse(stream)));
    }
}

fn server_config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["somebody.else.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

struct Conversation {
    connection: usize,
    face: Face,
    heard: Sender<Heard>,
    config: Arc<ServerConfig>,
}

/// The connection, read byte by byte while in clear: what follows STARTTLS belongs to TLS.
enum Wire {
    Clear(TcpStream),
    Secured(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Conversation {
    fn converse(self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE_MAX))?;
        let mut wire = Wire::Clear(stream);
        wire.write_all(b"220 tls.test ESMTP\r\n")?;
        while let Some(line) = read_line(&mut wire)? {
            let line = String::from_utf8_lossy(&line).into_owned();
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            self.note(&wire, What::Command(line));
            match &*verb {
                "EHLO" => wire.write_all(wire.hello())?,
                "STAR" => wire = self.secure(wire)?,
                "DATA" => self.take_text(&mut wire)?,
                "MAIL" | "RCPT" | "RSET" | "NOOP" => wire.write_all(b"250 2.0.0 ok\r\n")?,
                "QUIT" => return wire.write_all(b"221 2.0.0 bye\r\n"),
                _ => wire.write_all(b"500 5.5.2 what?\r\n")?,
            }
            wire.flush()?;
        }
        Ok(())
    }

    fn note(&self, wire: &Wire, what: What) {
        let is_secured = matches!(wire, Wire::Secured(_));
        // The story may be over before its connections are.
        drop(self.heard.send(Heard { connection: self.connection, is_secured, what }));
    }

    fn take_text(&self, wire: &mut Wire) -> io::Result<()> {
        wire.write_all(b"354 go on\r\n")?;
        let mut text = Vec::new();
        while let Some(line) = read_line(wire)? {
            if line == b"." {
                self.note(wire, What::Mail(text));
                return wire.write_all(b"250 2.0.0 taken\r\n");
            }
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            text.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn secure(&self, wire: Wire) -> io::Result<Wire> {
        let Wire::Clear(mut stream) = wire else { return Ok(wire) };
        match self.face {
            Face::Secures => stream.write_all(b"220 2.0.0 go\r\n")?,
            Face::InjectsInClear => stream.write_all(b"220 2.0.0 go\r\n250 2.0.0 injected\r\n")?,
            Face::BreaksHandshake => {
                stream.write_all(b"220 2.0.0 go\r\n")?;
                // Behind the ClientHello: before it, this would be an injected reply.
                stream.read_exact(&mut [0; 16])?;
                stream.write_all(b"454 4.7.0 this is no TLS at all\r\n")?;
                return Ok(Wire::Clear(stream));
            }
        }
        let session = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        Ok(Wire::Secured(Box::new(StreamOwned::new(session, stream))))
    }
}

impl Wire {
    fn hello(&self) -> &'static [u8] {
        match self {
            Self::Clear(_) => b"250-tls.test\r\n250-8BITMIME\r\n250 STARTTLS\r\n",
            Self::Secured(_) => b"250-tls.test\r\n250 8BITMIME\r\n",
        }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(into),
            Self::Secured(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(bytes),
            Self::Secured(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::Secured(stream) => stream.flush(),
        }
    }
}

/// A line without its CRLF; `None` at the end.
fn read_line(wire: &mut Wire) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        if wire.read(&mut byte)? == 0 {
            return Ok(None);
        }
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Ok(Some(line))
}
