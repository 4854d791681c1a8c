# What the scripts of the network tests begin with.

# The card's interface.
card=$(ls /sys/class/net | grep eth)

# Gives it an address and puts it up.
up() {
    ip link set "$card" up
    ip addr add "$1/24" dev "$card"
}

# The agent's tasks, each as often as it takes to know which one failed.
push() {
    agent push "$@" || { echo "push $* failed" >&2; return 1; }
}
pull() {
    agent pull "$@" || { echo "pull $* failed" >&2; return 1; }
}

# Datagrams of one frame's length and of many.
echoes() {
    agent bounce "$1" count=10 size=1000
    agent bounce "$1" count=3 size=60000
}

# The relids of every channel. The lowest that is free is the next one's, so one that is lost shows.
relids() {
    ls -d "$bus"/*/channels/* | sed 's/.*\///' | sort -n | tr '\n' ' '
}

# Waits until they are these, and says yes, or what they are instead.
same() {
    for turn in $(seq 200); do
        [ "$(relids)" != "$1" ] || { echo yes; return; }
        usleep 50000
    done
    echo "$1 / $(relids)"
}
