//! The part of HTTP that the page needs: one GET request for each connection.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Maximum size of a request's head. Browsers send about 1 KiB.
const MAX_HEAD: usize = 16 << 10;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The method, such as GET.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    query: String,
    hosts: Vec<String>,
}

impl Request {
    /// Reads the head of a request. `None` if it is not HTTP.
    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target, version) = (first.next()?, first.next()?, first.next()?);
        if first.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut hosts = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            if name.eq_ignore_ascii_case("host") {
                hosts.push(value.trim().to_ascii_lowercase());
            }
        }
        let own = str::to_owned;
        Some(Self { method: own(method), path: own(path), query: own(query), hosts })
    }

    /// The value of a parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether its one host is this machine, under any port: a tunnel has another one.
    pub(super) fn is_local(&self) -> bool {
        let [host] = &self.hosts[..] else { return false };
        let local =
            ["localhost", "127.0.0.1", "[::1]"].iter().find_map(|name| host.strip_prefix(name));
        local.is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        })
    }
}

/// Reads a request within `patience`. `None` if the browser closes the connection first.
///
/// # Errors
/// The answer to a request that is not one.
pub(super) fn read(stream: &mut impl Read, patience: Duration) -> Result<Option<Request>, Answer> {
    let (start, mut head, mut part) = (Instant::now(), Vec::new(), [0; 2048]);
    loop {
        if head.len() > MAX_HEAD || start.elapsed() > patience {
            return Err(Answer::refuse(400, "the request is too long"));
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => head.extend_from_slice(&part[..count]),
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            let request = std::str::from_utf8(&head).ok().and_then(Request::parse);
            return request.map(Some).ok_or_else(|| Answer::refuse(400, "not a request"));
        }
    }
}

/// The type of an answer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Html,
    Script,
    Style,
    Json,
    Png,
    Text,
}

impl Content {
    const fn mime(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Json => "application/json",
            Self::Png => "image/png",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    content: Content,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The requested content.
    pub(super) const fn ok(content: Content, body: Vec<u8>) -> Self {
        Self { status: 200, content, body }
    }

    /// The browser has this version of the content.
    pub(super) const fn unchanged() -> Self {
        Self { status: 204, content: Content::Text, body: Vec::new() }
    }

    /// A request that is not answered, and why.
    pub(super) fn refuse(status: u16, why: &str) -> Self {
        Self { status, content: Content::Text, body: format!("{why}\n").into_bytes() }
    }

    const fn reason(&self) -> &'static str {
        match self.status {
            200 => "OK",
            204 => "No Content",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Misdirected Request",
        }
    }

    /// Sends the answer and ends the connection.
    pub(super) fn send(&self, stream: &mut impl Write) -> std::io::Result<()> {
        // A picture's address changes with its content.
        let cache = if self.content == Content::Png { "max-age=3600" } else { "no-store" };
        let allow = if self.status == 405 { "Allow: GET\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: {cache}\r\n\
             {allow}Connection: close\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
             img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
             form-action 'none'\r\n\r\n",
            self.status,
            self.reason(),
            self.content.mime(),
            self.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Option<Request> {
        Request::parse(head)
    }

    #[test]
    fn hosts_other_than_this_machine_are_refused() {
        let local =
            |host: &str| request(&format!("GET / HTTP/1.1\r\n{host}\r\n")).unwrap().is_local();
        for host in ["localhost", "localhost:9000", "127.0.0.1:8080", "LocalHost:1", "[::1]:80"] {
            assert!(local(&format!("Host: {host}")), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:80.evil.example",
            "localhost:",
            "localhost:x",
            "127.0.0.2",
            "",
            "0.0.0.0:80",
        ] {
            assert!(!local(&format!("Host: {host}")), "{host}");
        }
        assert!(!local("Accept: a"), "no host");
        assert!(!local("Host: localhost\r\nhost: evil.example"), "two hosts");
    }

    #[test]
    fn a_request_has_a_path_and_a_query() {
        let request =
            request("GET /data.json?a=1&have=2-3 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/data.json"));
        assert_eq!((request.query("have"), request.query("hav")), (Some("2-3"), None));
    }

    #[test]
    fn other_text_is_not_a_request() {
        for head in [
            "",
            "GET /",
            "GET / HTTP/1.1 x",
            "GET http://a/ HTTP/1.1",
            "GET / SSH-2",
            "GET / HTTP/1.1\r\nhost\r\n",
        ] {
            assert_eq!(request(head), None, "{head}");
        }
        let endless = std::io::repeat(b'a');
        assert_eq!(read(&mut endless.take(1 << 20), PATIENCE).unwrap_err().status, 400);
        assert_eq!(read(&mut std::io::empty(), PATIENCE), Ok(None));
        assert_eq!(read(&mut &b"\xff\r\n\r\n"[..], PATIENCE).unwrap_err().status, 400);
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_has_the_length_of_its_body_and_no_cache() {
        let mut sent = Vec::new();
        Answer::ok(Content::Json, b"{}".to_vec()).send(&mut sent).unwrap();
        let text = String::from_utf8(sent).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n{}"), "{text}");
        assert!(text.contains("Content-Length: 2\r\n") && text.contains("no-store"), "{text}");
    }
}
