//! `up`: owns a cluster and serves requests about it.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use cassandra_cluster::{Builder, Cluster};

use super::request::Request;

/// First line of an answer that is not an error.
pub(crate) const OK: &str = "ok";
const ERROR: &str = "error";

/// Starts the cluster and serves until `down`. Ctrl-C ends this process at once, and the cluster with it: its nodes do not
/// outlive their owner.
pub(crate) fn up(builder: Builder, socket: &Path) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", socket.display());
    if UnixStream::connect(socket).is_ok() {
        return Err("a cluster runs already: `cassandra-cluster down` ends it".to_owned());
    }
    let cluster = Arc::new(builder.start().map_err(|error| error.to_string())?);
    // Left by an `up` that was killed.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(told)?;
    let points: Vec<String> = cluster.contact_points().iter().map(ToString::to_string).collect();
    let mut stdout = io::stdout();
    // Nobody need read it.
    let _ = writeln!(stdout, "{}", points.join(",")).and_then(|()| stdout.flush());

    for stream in listener.incoming() {
        let stream = stream.map_err(told)?;
        let cluster = Arc::clone(&cluster);
        let socket = socket.to_owned();
        // A thread each: a `wait` takes a while.
        thread::spawn(move || {
            let ended = serve(&stream, &cluster);
            if ended {
                let _ = fs::remove_file(socket);
                std::process::exit(0);
            }
        });
    }
    Ok(String::new())
}

/// Serves one request. True when it was to end the cluster.
fn serve(mut stream: &UnixStream, cluster: &Cluster) -> bool {
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line).is_err() {
        return false;
    }
    let request = Request::from_line(&line);
    let answer = match &request {
        Ok(request) => request.execute(cluster).map_err(|error| error.to_string()),
        Err(message) => Err(message.clone()),
    };
    let (status, text) = match &answer {
        Ok(text) => (OK, text),
        Err(text) => (ERROR, text),
    };
    // The client may have gone.
    let _ = write!(stream, "{status}\n{text}");
    request.is_ok_and(|request| request.is_down())
}
