//! What the words on the command line ask for.
//!
//! `up` owns the cluster and a Unix socket; every other command is one line to that socket.

mod request;
mod server;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cassandra_cluster::{Builder, Cluster, Jit, Tls};

const USAGE: &str = "\
cassandra-cluster: a real Cassandra on loopback

  up [--dc NAME:NODES].. [--auth] [--tls optional|required] [--jit full]
                    starts a cluster (default: --dc dc1:1) and keeps it until Ctrl-C or `down`
  down              ends it
  status            its nodes
  env               its addresses, as variables for a shell
  stop N | start N | restart N | kill N | pause N | resume N
                    to node N: SIGTERM, start, both, SIGKILL, SIGSTOP, SIGCONT
  wait N up|down [SECONDS]
                    until its peers see node N so (default: 90)
  nodetool N ARGS.. Cassandra's own tool
  log N             the end of node N's logs
  resolve           only fetches Cassandra into the cache
";

/// Does what the arguments say; returns what to print, or why it could not be done.
pub(crate) fn run(arguments: &[String]) -> Result<String, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Err(format!("what is to be done?\n\n{USAGE}")),
        ["help" | "--help" | "-h"] => Ok(USAGE.to_owned()),
        ["resolve"] => {
            let version = cassandra_cluster::resolve().map_err(|error| error.to_string())?;
            Ok(format!("Cassandra {version}\n"))
        }
        ["up", options @ ..] => server::up(builder(options)?, &socket()?),
        request => ask(request),
    }
}

fn builder(options: &[&str]) -> Result<Builder, String> {
    let mut builder = Cluster::builder();
    let mut options = options.iter().copied();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("{option} needs a value"));
        builder = match option {
            "--dc" => {
                let value = value()?;
                let parts = value.split_once(':').and_then(|(name, nodes)| Some((name, nodes.parse().ok()?)));
                let (name, nodes) = parts.ok_or_else(|| format!("--dc takes NAME:NODES, not {value}"))?;
                builder.datacenter(name, nodes)
            }
            "--auth" => builder.auth(true),
            "--tls" => match value()? {
                "optional" => builder.tls(Tls::Optional),
                "required" => builder.tls(Tls::Required),
                other => return Err(format!("--tls takes optional or required, not {other}")),
            },
            "--jit" => match value()? {
                "fast" => builder.jit(Jit::Fast),
                "full" => builder.jit(Jit::Full),
                other => return Err(format!("--jit takes fast or full, not {other}")),
            },
            other => return Err(format!("`up` knows no {other}\n\n{USAGE}")),
        };
    }
    Ok(builder)
}

/// Sends a request to the `up` that runs, and returns its answer.
fn ask(words: &[&str]) -> Result<String, String> {
    // Misspelt words are told here, without a cluster.
    let line = request::Request::parse(words)?.to_line();
    let path = socket()?;
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no cluster runs: `cassandra-cluster up` starts one".to_owned()
        }
        _ => format!("{}: {error}", path.display()),
    })?;
    let mut answer = String::new();
    stream
        .write_all(line.as_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    match answer.split_once('\n') {
        Some((server::OK, text)) => Ok(text.to_owned()),
        Some((_, text)) => Err(text.to_owned()),
        None => Err("the cluster ended without an answer".to_owned()),
    }
}

/// This user's one socket: in `XDG_RUNTIME_DIR`, else below the temporary directory.
fn socket() -> Result<PathBuf, String> {
    let directory = match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(runtime) => PathBuf::from(runtime).join("tower-cassandra"),
        None => std::env::temp_dir().join(format!("tower-cassandra-{}", rustix::process::getuid().as_raw())),
    };
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(directory.join("cluster.sock")),
    }
}
