//! Which node is next. The application names endpoints, a node that goes away may name others; the connection and the HTTP
//! calls go to the current one until it cannot be connected to or says that it goes away, and then to the next in turn.
//!
//! What a node names is tried first, once: an endpoint that fails is forgotten, and the application's own are always left.
//! A client whose endpoints are all `https` does not follow a node to a plain `http` one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

/// Endpoints of one GOAWAY that are looked at; the protocol allows so many.
const NAMED_MAX: usize = 16;

/// An endpoint as an application writes it: `http` or `https`, a host, and a path that ends with a slash.
pub(in crate::native) fn parse_endpoint(text: &str) -> Option<Url> {
    let mut url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("");
    }
    Some(url)
}

#[derive(Debug)]
struct Turn {
    /// Named by a node that went away, and not tried yet or in use.
    named: Vec<Url>,
    /// Index into the application's own.
    own: usize,
}

/// The endpoints of one client.
#[derive(Debug)]
pub(in crate::native) struct Endpoints {
    own: Vec<Url>,
    turn: Mutex<Turn>,
}

impl Endpoints {
    /// `None` without any.
    pub(in crate::native) fn new(own: Vec<Url>) -> Option<Endpoints> {
        (!own.is_empty()).then_some(Endpoints {
            own,
            turn: Mutex::new(Turn {
                named: Vec::new(),
                own: 0,
            }),
        })
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pick(&self, turn: &Turn) -> Url {
        let own = &self.own[turn.own % self.own.len()];
        turn.named.first().unwrap_or(own).clone()
    }

    /// Where to connect to.
    pub(in crate::native) fn current(&self) -> Url {
        self.pick(&self.turn())
    }

    /// How many there are to try in turn.
    pub(in crate::native) fn count(&self) -> usize {
        self.own.len() + self.turn().named.len()
    }

    /// The endpoint that a URL is below of.
    pub(in crate::native) fn base_of(&self, url: &Url) -> Option<Url> {
        let turn = self.turn();
        let mut all = turn.named.iter().chain(&self.own);
        all.find(|base| url.as_str().starts_with(base.as_str()))
            .cloned()
    }

    /// This endpoint cannot be connected to. Returns the next one. If somebody else found out before, nothing changes.
    pub(in crate::native) fn failed(&self, endpoint: &Url) -> Url {
        let mut turn = self.turn();
        if self.pick(&turn) == *endpoint {
            if turn.named.is_empty() {
                turn.own = (turn.own + 1) % self.own.len();
            } else {
                turn.named.remove(0);
            }
        }
        self.pick(&turn)
    }

    /// The current node goes away, and named these; in the node's order, which is its to spread.
    pub(super) fn leave(&self, named: &[String]) {
        let is_secure = self.own.iter().all(|own| own.scheme() == "https");
        let mut turn = self.turn();
        if turn.named.is_empty() {
            turn.own = (turn.own + 1) % self.own.len();
        }
        turn.named = named
            .iter()
            .take(NAMED_MAX)
            .filter_map(|text| parse_endpoint(text))
            .filter(|url| !is_secure || url.scheme() == "https")
            .collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn endpoints(own: &[&str]) -> Endpoints {
        Endpoints::new(own.iter().map(|it| parse_endpoint(it).unwrap()).collect()).unwrap()
    }

    fn named(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn only_endpoints_of_http_are_endpoints() {
        for text in ["", "chat.example", "ws://chat.example", "file:///etc"] {
            assert_eq!(parse_endpoint(text), None, "{text}");
        }
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://chat.example/conch", "https://chat.example/conch/"),
            (
                "https://chat.example/conch/?a#b",
                "https://chat.example/conch/",
            ),
        ] {
            assert_eq!(parse_endpoint(text).unwrap().as_str(), url);
        }
    }

    #[test]
    fn failed_endpoint_gives_way_to_the_next_in_turn() {
        let endpoints = endpoints(&["http://one", "http://two"]);
        let one = endpoints.current();
        let two = endpoints.failed(&one);
        assert_eq!(two.as_str(), "http://two/");
        // The HTTP calls and the connection find out one after the other.
        assert_eq!(endpoints.failed(&one), two);
        assert_eq!(endpoints.failed(&two), one);
    }

    #[test]
    fn named_endpoints_come_first_and_fall_back_to_ones_own() {
        let endpoints = endpoints(&["http://one"]);
        endpoints.leave(&named(&["http://two", "nonsense", "https://three"]));
        assert_eq!(endpoints.count(), 3);
        let two = endpoints.current();
        assert_eq!(two.as_str(), "http://two/");
        let three = endpoints.failed(&two);
        assert_eq!(three.as_str(), "https://three/");
        assert_eq!(endpoints.failed(&three).as_str(), "http://one/");
        assert_eq!(endpoints.count(), 1);
    }

    #[test]
    fn nobody_is_led_from_https_to_http() {
        let endpoints = endpoints(&["https://one"]);
        endpoints.leave(&named(&["http://two", "https://three"]));
        assert_eq!(endpoints.current().as_str(), "https://three/");
    }

    #[test]
    fn goaway_that_names_nobody_moves_on_among_ones_own() {
        let endpoints = endpoints(&["http://one", "http://two"]);
        endpoints.leave(&[]);
        assert_eq!(endpoints.current().as_str(), "http://two/");
    }

    #[test]
    fn a_node_cannot_name_without_end() {
        let endpoints = endpoints(&["http://one"]);
        endpoints.leave(&vec!["http://two".to_owned(); 1_000]);
        assert_eq!(endpoints.count(), 1 + NAMED_MAX);
    }
}
