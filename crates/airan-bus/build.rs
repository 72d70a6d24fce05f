//! Names, in one line, a tool that librdkafka's own build needs and this machine lacks.
//!
//! It runs beside that build, so its line stands next to the longer complaint of whatever fails first.

use std::env;
use std::path::Path;

/// What `configure && make` of librdkafka calls, and the packages that bring it.
const NEEDED: [(&[&str], &str); 3] = [
    (&["cc", "gcc", "clang"], "a C compiler"),
    (&["c++", "g++", "clang++"], "a C++ compiler"),
    (&["make", "gmake"], "make"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| env::split_paths(&path).any(|folder| Path::new(&folder).join(name).is_file());
    let named = |variable: &str| env::var_os(variable).is_some();
    for (names, what) in NEEDED {
        let is_set = match what {
            "a C compiler" => named("CC"),
            "a C++ compiler" => named("CXX"),
            _ => named("MAKE"),
        };
        if !is_set && !names.iter().any(|name| is_there(name)) {
            println!(
                "cargo::error={what} is missing, which the Kafka client's build needs: \
                 apt-get install build-essential (Debian, Ubuntu), dnf install gcc gcc-c++ make (Fedora, RHEL)"
            );
        }
    }
}
