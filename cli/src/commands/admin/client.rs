//! One request to a running engine, over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::flags::admin::AtFlags;
use crate::settings;

/// Longer than the engine takes for any answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A list of a thousand sites, each with a reply and a limit in words, is a tenth of it.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The way to an engine.
pub(super) struct Client {
    socket: PathBuf,
}

/// What an engine says when it refuses.
#[derive(serde::Deserialize)]
struct Said {
    error: String,
}

impl Client {
    /// Of the socket that was named, or that the settings name.
    pub(super) fn of(at: &AtFlags) -> anyhow::Result<Self> {
        if let Some(socket) = &at.socket {
            return Ok(Self { socket: socket.clone() });
        }
        let config = at.config.as_deref().ok_or_else(|| anyhow!("say --config or --socket"))?;
        let settings = settings::load(config)?;
        let admin = settings.admin.ok_or_else(|| {
            anyhow!("{} has no [admin] section that names a socket", config.display())
        })?;
        Ok(Self { socket: admin.socket })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, Bytes::new())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "postrider")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let talk = async { tokio::time::timeout(PATIENCE, talk(&self.socket, request)).await };
        let (is_success, answer) = runtime
            .block_on(talk)
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .context("the engine does not answer in time")??;
        if !is_success {
            match serde_json::from_slice::<Said>(&answer) {
                Ok(Said { error }) => bail!("{error}"),
                Err(_) => bail!("{}", String::from_utf8_lossy(&answer)),
            }
        }
        serde_json::from_slice(&answer).context("the engine answers what this program cannot read")
    }
}

/// The answer's body, and whether it is one of success.
async fn talk(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<(bool, Bytes)> {
    let stream = UnixStream::connect(socket).await.map_err(unreachable);
    let stream = stream.with_context(|| {
        format!("no engine answers at {}: does one run with this [admin] socket?", socket.display())
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let is_success = response.status().is_success();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
    drop(sender);
    connection.abort();
    Ok((is_success, body))
}

/// Without its file, nobody listens either.
fn unreachable(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::ConnectionRefused, error),
        _ => error,
    }
}

/// A name as one segment of a path.
pub(super) fn in_path(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_there_is_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client { socket: folder.path().join("none.sock") };
        let error = client.get::<serde_json::Value>("/v1/sites").unwrap_err();
        assert!(error.to_string().starts_with("no engine answers at "), "{error}");
        let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(cause, Some(io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(in_path("[::1]:25/../x?"), "%5B%3A%3A1%5D%3A25%2F%2E%2E%2Fx%3F");
    }
}
