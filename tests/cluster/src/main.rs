//! `cassandra-cluster`: a real Cassandra on loopback, from the command line. See `USAGE`.

#![forbid(unsafe_code)]

mod cli;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cli::run(&arguments) {
        Ok(answer) => {
            // Whoever reads may have closed the pipe, as `head` does.
            let _ = std::io::stdout().write_all(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("cassandra-cluster: {message}");
            ExitCode::FAILURE
        }
    }
}
