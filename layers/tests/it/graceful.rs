//! The example `graceful_shutdown`, as a process that is told to end.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::process::{Example, until};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// The status and the body of an answer; `None` if there is no answer.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn a_process_that_is_terminated_finishes_what_it_has_begun_and_ends_with_success() {
    let mut server = Example::start("graceful_shutdown", |command| {
        command.arg("127.0.0.1:0");
    });
    let address = server.address;
    assert_eq!(get(address, "/ready"), Some((200, "0 in flight\n".to_owned())));
    let slow = std::thread::spawn(move || get(address, "/slow"));
    until("it is under way", LONG, || get(address, "/ready").filter(|(_, body)| body == "1 in flight\n"));

    server.terminate();
    let unready =
        until("it is not ready", LONG, || get(address, "/ready").filter(|(status, _)| *status != 200));
    assert_eq!(unready.0, 503);
    // The load balancer has not seen that yet.
    assert_eq!(get(address, "/"), Some((200, "hello\n".to_owned())));
    // By now it has: whoever comes still is refused, or finds nobody there.
    let late = until("whoever comes late is refused", LONG, || {
        Some(get(address, "/")).filter(|answer| !matches!(answer, Some((200, _))))
    });
    assert!(late.is_none_or(|(status, _)| status == 503));

    assert_eq!(slow.join().unwrap(), Some((200, "done\n".to_owned())));
    let (status, said) = server.ended(LONG);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("finished: true, in_flight: 0"), "{said}");
}
