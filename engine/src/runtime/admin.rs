//! The administration: HTTP over a unix socket, on the control thread.
//!
//! ```text
//! GET  /v1/sites?top=N    GET /v1/sites/NAME    GET /v1/queue?top=N    GET /v1/messages/ID
//! POST /v1/hold  /v1/release  /v1/flush  /v1/cancel  /v1/reroute      a `SteerRequest`
//! ```
//! Who may open the socket may do everything, so it is the engine's user's and root's alone.

mod asking;
mod messages;
mod requests;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::mesh::Mesh;
use asking::Shards;

/// Operators and their scripts at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// For one connection from beginning to end: it serves one request, which is at most four rounds of
/// questions to shards.
const CONNECTION_TIME: Duration = Duration::from_secs(25);
/// Of these, for the head of the request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// When no connection can be taken, descriptors may be free again by then.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The socket, and the shards behind it.
pub(super) struct Admin {
    socket: std::os::unix::net::UnixListener,
    path: PathBuf,
    shards: Shards,
}

impl Admin {
    /// Opens the socket. One that is there is removed if nobody listens on it any more.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the kernel refuses.
    pub(super) fn open(path: &Path, mesh: Arc<Mesh>) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = std::os::unix::net::UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned(), shards: Shards::new(mesh) })
    }

    /// Serves until the runtime it runs on ends.
    pub(super) async fn serve(self) {
        let file = SocketFile(self.path);
        let listener = match UnixListener::from_std(self.socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "no administration"),
        };
        let router = requests::router(self.shards);
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) if is_trusted(&stream) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        converse(stream, router).await;
                        drop(permit);
                    });
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
        drop(file);
    }
}

/// Removes the socket when nobody listens any more.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(fs::remove_file(&self.0));
    }
}

async fn converse(stream: UnixStream, router: axum::Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an administrator's connection broke"),
        Err(_) => tracing::debug!("an administrator's connection took too long"),
    }
}

/// The file's mode says the same; it is set a moment after the socket is there.
fn is_trusted(stream: &UnixStream) -> bool {
    // SAFETY: it reads a number of the process and cannot fail.
    let own = unsafe { libc::geteuid() };
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "something that is no socket is there; remove it or name another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let text = "another engine answers there; give each its own socket";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> io::Result<Admin> {
        Admin::open(path, Arc::new(Mesh::new(Vec::new())))
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists(), "as a killed engine leaves it");
        drop(open(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(open(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
