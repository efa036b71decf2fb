# Steps of a long check, each of which is a test in TAP; in "failed", how many have
# failed. Sourced by programs that print TAP.
# shellcheck shell=bash disable=SC2034

# begin_steps DIR: DIR, which is made anew, gets the logs.
begin_steps()
{
    steps_logs=$1 count=0 failed=0
    rm -rf "$1"
    mkdir -p "$1"
}

# step NAME COMMAND...: a line of TAP; if it fails, the end of its log as well. A function
# of the caller's ends at its first error, and its variables end with it.
step()
{
    local name=$1 log begin=$SECONDS status=0
    log=$steps_logs/${1//[^a-zA-Z0-9.-]/-}.log
    shift
    count=$((count + 1))
    # Not as a condition: bash would go on after an error.
    set +e
    (set -e; "$@") > "$log" 2>&1 < /dev/null
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        echo "ok $count - $name ($((SECONDS - begin)) s)"
    else
        failed=$((failed + 1))
        echo "not ok $count - $name"
        { grep -m5 -B1 -A8 -E 'FAILED|error|not ok' "$log" || tail -n 20 "$log"; } | sed 's/^/# /'
    fi
}
