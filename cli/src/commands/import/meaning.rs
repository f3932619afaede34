//! What keys and matches of a `shaping.toml` mean here, if anything.

/// What a provider's match is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    Mx,
    Domain,
}

pub(super) enum Absence {
    /// The file asks for something that we do not do.
    Missed(&'static str),
    NotMissed(&'static str),
}

pub(super) fn no_counterpart(key: &str) -> Absence {
    use Absence::{Missed, NotMissed};
    match key {
        "max_ready"
        | "refresh_interval"
        | "refresh_strategy"
        | "dispatcher_wakeup_strategy"
        | "maintainer_wakeup_strategy"
        | "provider_name"
        | "readyq_pool_name"
        | "low_memory_reduction_policy"
        | "no_memory_reduction_policy"
        | "aggressive_connection_opening" => {
            NotMissed("of KumoMTA's own machinery; there is nothing to set here")
        }
        "opportunistic_tls_reconnect_on_failed_handshake" | "remember_broken_tls" => {
            NotMissed("where a handshake fails, mail goes in clear")
        }
        "consecutive_connection_failures_before_delay" => {
            NotMissed("the breaker of each path sees by itself when a site does not answer")
        }
        "enable_tls" => Missed("TLS is set for all sites, by [egress]"),
        "smtp_port" => Missed("the port is set for all sites, by [egress], or by a [[route]]"),
        "mx_rollup" => Missed("has a meaning for domains only"),
        "match" | "provider_connection_limit" | "provider_max_message_rate" => {
            Missed("has a meaning for providers only")
        }
        "additional_connection_limits" | "additional_message_rate_throttles" => {
            Missed("shared caps are those of [provider], [source] and [tenant]")
        }
        "source_selection_rate"
        | "additional_source_selection_rates"
        | "provider_source_selection_rate" => Missed("see warm_up of [source]"),
        "ehlo_domain" => Missed("the EHLO name is the hostname of a [source]"),
        "skip_hosts" | "prohibited_hosts" | "ip_lookup_strategy" => {
            Missed("hosts are not chosen by address")
        }
        "use_lmtp" => Missed("there is no LMTP here"),
        key if key.contains("smtp_auth") => Missed("there is no AUTH on the way out"),
        key if ["tls", "dane", "mta_sts", "openssl"].iter().any(|part| key.contains(part)) => {
            Missed("there is no TLS policy here")
        }
        "enable_pipelining"
        | "enable_rset"
        | "reconnect_strategy"
        | "ignore_8bit_checks"
        | "try_next_host_on_transport_error" => Missed("not to be set here"),
        _ => Missed("not a key of shaping.toml that is known here"),
    }
}

/// What a match means in our patterns: a suffix without its dot is the name itself, too.
pub(super) fn patterns(kind: &str, text: &str) -> Option<(Pattern, Vec<String>)> {
    let (kind, is_suffix) = match kind {
        "MXSuffix" => (Pattern::Mx, true),
        "HostName" => (Pattern::Mx, false),
        "DomainSuffix" => (Pattern::Domain, true),
        _ => return None,
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = domain_name(text.strip_prefix('.').filter(|_| is_suffix).unwrap_or(text))?;
    let below = format!(".{name}");
    Some(match (is_suffix, text.starts_with('.')) {
        (true, true) => (kind, vec![below]),
        (true, false) => (kind, vec![name, below]),
        (false, _) => (kind, vec![name]),
    })
}

/// The name in lower case, if it can be one with more than a label.
pub(super) fn domain_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = text.len() <= 253 && text.contains('.') && text.split('.').all(is_label);
    (is_name && !is_address).then(|| text.to_ascii_lowercase())
}
