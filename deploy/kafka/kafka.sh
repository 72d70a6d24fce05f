#!/usr/bin/env bash
# One Apache Kafka for trying things out and for tests: a single process that is broker and controller, without security.
#
# usage: kafka.sh start|stop|restart|kill|status
#
# environment:
#   AIRAN_KAFKA_PORT  where clients connect, on 127.0.0.1 (default 9092); the controller listens on a free port
#   AIRAN_KAFKA_DIR   data, configuration and log (default ${XDG_CACHE_HOME:-$HOME/.cache}/airan/kafka/data)
#   AIRAN_KAFKA_WIRE  LISTEN:ADVERTISED: a second listener on port LISTEN that tells its clients to come to port ADVERTISED, where
#                     whatever stands between them and the broker listens; several with blanks between them (default: none)
#   AIRAN_KAFKA_HEAP  memory of the Java machine (default 512m)
#
# Needs Java 17 or later. The first start needs Maven too, and fetches Kafka (46 jars, 43 MB) from Maven Central into
# ${XDG_CACHE_HOME:-$HOME/.cache}/airan/kafka. `stop` is a clean shutdown, `kill` a kill -9; data stay in both cases.
set -euo pipefail

kafka_version=4.1.0
log4j_version=2.24.3
cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan/kafka
port=${AIRAN_KAFKA_PORT:-9092}
dir=$(realpath -m "${AIRAN_KAFKA_DIR:-$cache/data}")
heap=${AIRAN_KAFKA_HEAP:-512m}
wire=${AIRAN_KAFKA_WIRE:-}
libs=$cache/libs-$kafka_version
pid_file=$dir/kafka.pid
log_file=$dir/kafka.log
start_seconds=180
stop_seconds=40

say() { printf 'kafka.sh: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install $2"; }

running() { # prints the process id if it runs
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    # A number that another process has now is not ours.
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "kafka.Kafka $dir/server.properties" || return 1
    printf '%s\n' "$pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

fetch() {
    [ -e "$libs/.complete" ] && return
    need mvn "maven (Debian: apt-get install maven)"
    say "fetching Apache Kafka $kafka_version into $libs"
    local work
    work=$(mktemp -d "${TMPDIR:-/tmp}/airan-kafka.XXXXXX")
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>airan</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>$log4j_version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$log4j_version</version></dependency>
  </dependencies>
</project>
POM
    mkdir -p "$libs"
    if ! mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs" >"$work/mvn.log" 2>&1; then
        tail -n 20 "$work/mvn.log" >&2
        rm -rf "$work"
        fail "Apache Kafka could not be fetched from Maven Central"
    fi
    rm -rf "$work"
    touch "$libs/.complete"
}

free_port() { # one that nobody listens on, and that none is lent who connects while Kafka is away
    local candidate
    for _ in $(seq 100); do
        candidate=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || { printf '%s\n' "$candidate"; return; }
    done
    fail "no free port"
}

configure() {
    [ -e "$dir/server.properties" ] && grep -q "^listeners=PLAINTEXT://127.0.0.1:$port," "$dir/server.properties" && return
    local controller one number=0 listen="" advertise="" protocol=""
    controller=$(free_port)
    for one in $wire; do
        number=$((number + 1))
        listen+=",WIRE$number://127.0.0.1:${one%:*}"
        advertise+=",WIRE$number://127.0.0.1:${one#*:}"
        protocol+=",WIRE$number:PLAINTEXT"
    done
    mkdir -p "$dir"
    cat >"$dir/server.properties" <<CONFIG
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$listen
advertised.listeners=PLAINTEXT://127.0.0.1:$port$advertise
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$protocol
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
CONFIG
    cat >"$dir/log4j2.properties" <<CONFIG
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
logger.kafka.name=kafka.server
logger.kafka.level=INFO
CONFIG
}

java_with_kafka() { java -Dlog4j2.configurationFile="file:$dir/log4j2.properties" -cp "$libs/*" "$@"; }

start() {
    running >/dev/null && { say "runs already, on port $port"; return; }
    need java "a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless)"
    listens && fail "something else listens on port $port: set AIRAN_KAFKA_PORT"
    fetch
    configure
    if [ ! -e "$dir/logs/meta.properties" ]; then
        java_with_kafka kafka.tools.StorageTool format --cluster-id "$(java_with_kafka kafka.tools.StorageTool random-uuid)" \
            --config "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; fail "cannot format $dir/logs"; }
    fi
    # In a session of its own, so that Ctrl-C on the caller does not reach it.
    setsid nohup java "-Xmx$heap" "-Xms$heap" -XX:+UseSerialGC -Dlog4j2.configurationFile="file:$dir/log4j2.properties" \
        -cp "$libs/*" kafka.Kafka "$dir/server.properties" </dev/null >>"$log_file" 2>&1 &
    local pid=$! deadline=$((SECONDS + start_seconds))
    printf '%s\n' "$pid" >"$pid_file"
    until listens; do
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log_file" >&2; fail "Kafka ended while it started, see $log_file"; }
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$log_file" >&2; fail "Kafka does not listen after ${start_seconds}s"; }
        sleep 0.2
    done
    say "Apache Kafka $kafka_version listens on 127.0.0.1:$port, data in $dir"
}

end_with() { # end_with SIGNAL: and wait for the end
    local pid deadline=$((SECONDS + stop_seconds))
    pid=$(running) || { say "does not run"; rm -f "$pid_file"; return; }
    kill "-$1" "$pid"
    while running >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || fail "process $pid has not ended after ${stop_seconds}s"
        sleep 0.1
    done
    rm -f "$pid_file"
    say "ended"
}

case ${1:-} in
    start) start ;;
    stop) end_with TERM ;;
    restart) end_with TERM && start ;;
    kill) end_with KILL ;;
    status) if running >/dev/null; then say "runs on port $port"; else say "does not run"; exit 3; fi ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
