//! Certificates for the hosts of the sink: good ones by an authority of its own, and bad ones.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::personality::{Tls, TlsKind};

/// The names of a certificate, where a personality states none: as the banner says it, and as
/// `loadgen nameserver` calls the host.
const NAMES: &[&str] = &["{}", "{}.hosts.test"];
const WRONG_NAME: &str = "somebody.else.test";

/// Signs the certificates of one sink; made anew for each.
#[derive(Clone)]
pub(super) struct Authority {
    pem: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl Authority {
    pub(super) fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "loadgen sink");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self { pem: certificate.pem(), issuer: Arc::new(Issuer::new(params, key)) })
    }

    pub(super) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// How a host secures a connection, if a handshake of its kind can come to that.
    pub(super) fn configure(
        &self,
        tls: &Tls,
        host: &str,
        address: IpAddr,
    ) -> io::Result<Option<Arc<ServerConfig>>> {
        if matches!(tls.kind, TlsKind::None | TlsKind::Unavailable | TlsKind::Cut) {
            return Ok(None);
        }
        let (certificate, key) = self.certify(tls, host, address).map_err(io::Error::other)?;
        let versions: &[&SupportedProtocolVersion] = match tls.kind {
            TlsKind::Tls12 => &[&TLS12],
            _ => &[&TLS12, &TLS13],
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate], key)
            })
            .map_err(io::Error::other)?;
        Ok(Some(Arc::new(config)))
    }

    fn certify(
        &self,
        tls: &Tls,
        host: &str,
        address: IpAddr,
    ) -> Result<
        (CertificateDer<'static>, PrivateKeyDer<'static>),
        Box<dyn std::error::Error + Send + Sync>,
    > {
        let names = match (&tls.names, tls.kind) {
            (_, TlsKind::WrongName) => vec![WRONG_NAME.to_owned()],
            (Some(names), _) => names.iter().map(|name| name.replace("{}", host)).collect(),
            (None, _) => {
                let mut names: Vec<_> = NAMES.iter().map(|name| name.replace("{}", host)).collect();
                names.push(address.to_string());
                names
            }
        };
        let mut params = CertificateParams::new(names)?;
        if tls.kind == TlsKind::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = match tls.kind {
            TlsKind::SelfSigned => params.self_signed(&key)?,
            _ => params.signed_by(&key, &self.issuer)?,
        };
        Ok((certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der())?))
    }
}
