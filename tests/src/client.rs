//! A mail client that says exactly what a story wants it to, however improper.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A reply that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The least that systems grant.
const NARROW_BYTES: usize = 4096;

/// One connection to an engine.
pub struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and reads nothing yet.
    #[must_use]
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    /// The same with room for few bytes that were not read.
    #[must_use]
    pub fn connect_narrow(to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(NARROW_BYTES).unwrap();
        socket.connect(&to.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let replies = BufReader::new(stream.try_clone().unwrap());
        Self { stream, replies }
    }

    /// Connects and says EHLO.
    #[must_use]
    pub fn greeted(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        assert_eq!(client.reply(), Some(220));
        assert_eq!(client.say("EHLO client.test"), 250);
        client
    }

    /// Sends a command; the code of the reply.
    pub fn say(&mut self, command: &str) -> u16 {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Hands a message in: `text` is sent as it is, its final dot included.
    pub fn submit(&mut self, sender: &str, recipients: &[String], text: &[u8]) -> u16 {
        assert_eq!(self.say(&format!("MAIL FROM:<{sender}>")), 250);
        for recipient in recipients {
            assert_eq!(self.say(&format!("RCPT TO:<{recipient}>")), 250, "{recipient}");
        }
        assert_eq!(self.say("DATA"), 354);
        self.send(text);
        self.reply().unwrap()
    }

    /// The code of the next reply; `None` once the server has closed, politely or not.
    pub fn reply(&mut self) -> Option<u16> {
        loop {
            let mut line = String::new();
            match self.replies.read_line(&mut line) {
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                read => assert!(read.is_ok(), "no reply came: {read:?}"),
            }
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            if is_last {
                return Some(line[..3].parse().unwrap());
            }
        }
    }

    /// The codes of all replies up to the end of the connection.
    pub fn replies(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.reply()).collect()
    }

    /// A second handle, for a thread that writes what nobody may take.
    #[must_use]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends a writer that waits for room; a connection that is gone already is no trouble.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}
