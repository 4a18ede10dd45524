//! Does anybody answer at a node's address?

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a knock may take.
pub(super) const LIMIT: Duration = Duration::from_millis(500);

/// The request `OPTIONS` in version 4 of the protocol, which needs no login, and has no body.
const OPTIONS: [u8; 9] = [0x04, 0, 0, 0, 0x05, 0, 0, 0, 0];

/// The bit of a frame's first byte by which an answer is told from a request.
const ANSWER: u8 = 0x80;

/// Whether a node answers there, in time. Where connections are encrypted, to accept one is answer enough.
pub(super) async fn answers(address: SocketAddr, is_encrypted: bool) -> bool {
    timeout(LIMIT, knock(address, is_encrypted)).await.is_ok_and(|outcome| outcome.unwrap_or(false))
}

async fn knock(address: SocketAddr, is_encrypted: bool) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    if is_encrypted {
        return Ok(true);
    }
    stream.write_all(&OPTIONS).await?;
    // The version is of no interest: one that does not speak this one says so in an answer of its own.
    Ok(stream.read_u8().await? & ANSWER != 0)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a knock at a server that answers with these bytes, and then keeps the connection or not.
    async fn at(answer: Option<&'static [u8]>, is_encrypted: bool) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 9];
            let asked = stream.read_exact(&mut request).await.is_ok();
            match answer {
                Some(answer) => stream.write_all(answer).await.unwrap(),
                None => std::future::pending().await,
            }
            asked.then_some(request)
        });
        let answers = answers(address, is_encrypted).await;
        server.abort();
        if let Ok(Some(request)) = server.await {
            assert_eq!(request, OPTIONS);
        }
        answers
    }

    #[tokio::test]
    async fn a_node_answers_a_knock_and_what_accepts_and_says_nothing_does_not() {
        assert!(at(Some(&[0x84, 0, 0, 0, 6, 0, 0, 0, 0]), false).await);
        assert!(!at(None, false).await, "it hangs");
        assert!(!at(Some(&[]), false).await, "it closes the connection");
        assert!(!at(Some(b"HTTP/1.1 400 Bad Request"), false).await, "it is no node");
        assert!(at(None, true).await, "it would have to be spoken to encrypted");
    }

    #[tokio::test]
    async fn nobody_listens() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(!answers(free, false).await && !answers(free, true).await);
    }
}
