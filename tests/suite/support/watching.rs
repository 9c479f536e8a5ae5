//! A server of `csae watch` in tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::Command;

/// A server of `csae watch` that ends with this value.
#[derive(Debug)]
pub struct Watching {
    child: Child,
    /// Its port.
    pub port: u16,
}

impl Watching {
    /// Starts it.
    pub fn new(command: Command) -> Self {
        let mut process = command.flags("--port 0").process();
        let mut child =
            process.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let port = url.trim().trim_end_matches('/').rsplit(':').next().unwrap().parse();
        let port = port.unwrap_or_else(|_| panic!("no address: {url:?}"));
        Self { child, port }
    }

    /// Status and body of an answer.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&answer[9..12]).parse().unwrap(), answer[end + 4..].to_vec())
    }

    /// The data of the page.
    pub fn data(&self) -> Value {
        serde_json::from_slice(&self.get("/data.json").1).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
