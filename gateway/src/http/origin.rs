//! Which pages may open a WebSocket; [`super::cors`] says the same of the HTTP API.
//!
//! Programs that are not browsers send no `Origin`. A browser's must be the node's own (scheme, host and port of the
//! request) or stand in the configuration, exactly. There are no cookies on the socket, so this is a second wall.

/// A configured origin must be one: `scheme://host[:port]`, lower case, nothing behind it.
pub fn is_origin(origin: &str) -> bool {
    let rest = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || matches!(b, b'.' | b'-' | b':' | b'[' | b']')
            })
    })
}

/// How clients reach the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Http,
    Https,
    /// A proxy in front may speak either.
    Either,
}

/// Whether a request with these `Origin` headers may be upgraded.
pub fn is_allowed(
    origins: &[&[u8]],
    host: Option<&str>,
    scheme: Scheme,
    allowed: &[String],
) -> bool {
    let origin = match origins {
        [] => return true,
        [one] => *one,
        _ => return false,
    };
    let Ok(origin) = std::str::from_utf8(origin) else {
        return false;
    };
    if allowed.iter().any(|a| a == origin) {
        return true;
    }
    let Some(host) = host else {
        return false;
    };
    let own = |prefix: &str| {
        origin
            .strip_prefix(prefix)
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    match scheme {
        Scheme::Http => own("http://"),
        Scheme::Https => own("https://"),
        Scheme::Either => own("http://") || own("https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_only_the_own_host_and_configured_origins_pass() {
        let allowed = ["https://chat.example".to_owned()];
        let ask = |origin: &str| {
            is_allowed(
                &[origin.as_bytes()],
                Some("node.example:8443"),
                Scheme::Https,
                &allowed,
            )
        };
        assert!(is_allowed(&[], None, Scheme::Https, &[]));
        for good in [
            "https://node.example:8443",
            "https://NODE.example:8443",
            "https://chat.example",
        ] {
            assert!(ask(good), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://evil.example",
            "http://node.example:8443",
            "https://node.example",
            "https://node.example:8444",
            "https://node.example:8443.evil.example",
            "https://evilnode.example:8443",
            "https://node.example:8443/",
            "https://chat.example.evil.example",
            "https://CHAT.example",
            "https://chat.example:443",
            "file://",
        ] {
            assert!(!ask(bad), "{bad}");
        }
        let twice: [&[u8]; 2] = [b"https://chat.example", b"https://chat.example"];
        assert!(!is_allowed(
            &twice,
            Some("node.example"),
            Scheme::Https,
            &allowed
        ));
    }

    #[test]
    fn a_configured_origin_has_a_scheme_and_no_path() {
        assert!(is_origin("https://chat.example:8443"));
        for bad in [
            "chat.example",
            "https://",
            "https://chat.example/",
            "*",
            "https://CHAT.example",
            "null",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
