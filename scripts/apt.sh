# apt with its own directories, so that further suites can be read without
# changing the machine's apt configuration. Sourced by scripts/deps and
# scripts/fetch. The mirror and the keyring are those of the machine's Debian
# source.
# shellcheck shell=bash

APT_DIR=$CACHE/apt

# apt_for ARCH: from here on, packages of another architecture than the machine's. Nothing
# counts as installed there, and the indexes have a directory of their own.
apt_for()
{
    APT_DIR=$CACHE/apt-$1
    apt_options=(-o "APT::Architecture=$1" -o "APT::Architectures=$1"
                 -o Dir::State::Status=/dev/null)
}
apt_options=()

# The machine's apt sources, one a line: uri|suite|components|keyring. Reads
# both formats; sources.list comes first, then sources.list.d by name.
apt_machine_sources()
{
    local etc=/etc/apt f

    for f in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
        [ -f "$f" ] || continue
        awk '$1 == "deb" {
            key = ""; i = 2
            if ($2 ~ /^\[/)
                for (;; i++) {
                    opt = $i; gsub(/[][]/, "", opt)
                    if (opt ~ /^signed-by=/) key = substr(opt, 11)
                    if ($i ~ /\]$/ || i > NF) { i++; break }
                }
            comp = ""
            for (j = i + 2; j <= NF && $j !~ /^#/; j++) comp = comp " " $j
            print $i "|" $(i + 1) "|" comp " |" key
        }' "$f"
    done
    for f in "$etc"/sources.list.d/*.sources; do
        [ -f "$f" ] || continue
        awk 'function flush(   i, j, nu, ns, u, s) {
            if (types ~ /(^| )deb( |$)/ && tolower(enabled) !~ /^ *(no|false|0)/) {
                nu = split(uris, u, " "); ns = split(suites, s, " ")
                for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++)
                    print u[i] "|" s[j] "| " comps " |" key
            }
            types = uris = suites = comps = key = enabled = ""
        }
        /^#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[^ \t]/ { field = tolower($1); sub(/:.*/, "", field); sub(/^[^:]*:[ \t]*/, "") }
        { sub(/^[ \t]+/, ""); sub(/[ \t]+$/, "") }
        field == "types" { types = types " " $0 }
        field == "uris" { uris = uris " " $0 }
        field == "suites" { suites = suites " " $0 }
        field == "components" { comps = comps " " $0 }
        field == "enabled" { enabled = $0 }
        field == "signed-by" && $0 ~ /^\// { key = $0 }
        END { flush() }' "$f"
    done
}

# Write our own list of sources.
apt_setup()
{
    local sources codename main uri key sec_uri sec_key suite

    mkdir -p "$APT_DIR"/{lists,cache,empty}/partial
    sources=$(apt_machine_sources)
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
    main=$(awk -F'|' -v c="$codename" '$3 ~ / main / &&
        ($2 == c || $2 ~ /^(old)*stable$/) { print; exit }' <<<"$sources")
    [ -n "$main" ] || die "found no Debian source for $codename main in /etc/apt:" \
        "add one (deb MIRROR/debian $codename main) and try again"
    uri=$(cut -d'|' -f1 <<<"$main")
    uri=${uri%/}
    key=$(cut -d'|' -f4 <<<"$main")
    : "${key:=/usr/share/keyrings/debian-archive-keyring.gpg}"
    IFS='|' read -r sec_uri _ _ sec_key < <(awk -F'|' '
        $3 ~ / main / && $2 ~ /-security$/ { print; exit }' <<<"$sources") || true
    : "${sec_uri:=${uri%/debian}/debian-security}" "${sec_key:=$key}"

    {
        for suite in bookworm bookworm-updates bookworm-backports trixie trixie-backports; do
            echo "deb [signed-by=$key] $uri $suite main"
        done
        echo "deb [signed-by=$sec_key] $sec_uri bookworm-security main"
        # A mirror that stands still for a while has an index of sid past its
        # date. Sources alone are taken from there, each checked against the
        # sha256 in upstream/, so the date adds nothing; elsewhere it counts.
        echo "deb-src [signed-by=$key check-valid-until=no] $uri sid main"
        echo "deb-src [signed-by=$key] $uri trixie main"
    } > "$APT_DIR/sources.list.new"
    # Of Debian 13 only what is asked for by its suite
    printf 'Package: *\nPin: release n=trixie\nPin-Priority: 1\n' > "$APT_DIR/preferences"
    # Another mirror: what the old one had is of no use.
    if ! cmp -s "$APT_DIR/sources.list.new" "$APT_DIR/sources.list"; then
        rm -f "$APT_DIR/updated"
    fi
    mv "$APT_DIR/sources.list.new" "$APT_DIR/sources.list"
}

# apt_run apt-get|apt-cache ARG...
apt_run()
{
    local tool=$1
    shift
    # The sandbox user may not be able to enter our cache directory.
    "$tool" -qq \
        -o Dir::Etc::SourceList="$APT_DIR/sources.list" \
        -o Dir::Etc::SourceParts="$APT_DIR/empty" \
        -o Dir::Etc::Preferences="$APT_DIR/preferences" \
        -o Dir::State::Lists="$APT_DIR/lists" \
        -o Dir::Cache="$APT_DIR/cache" \
        -o APT::Sandbox::User=root \
        -o Acquire::Languages=none \
        -o Acquire::Retries=3 \
        "${apt_options[@]}" "$@"
}

# Read the indexes, unless that was done in the last hours. A suite that is not
# there is no error here: what is then missing is reported by name later.
apt_update()
{
    if [ -n "$(find "$APT_DIR/updated" -mmin -360 2>/dev/null)" ]; then
        return 0
    fi
    say "apt: reading the package indexes (own directories, in $APT_DIR)"
    if apt_run apt-get -o APT::Update::Error-Mode=any update >&2; then
        touch "$APT_DIR/updated"
    else
        say "apt: not every index could be read; going on with what is there"
    fi
}

# Hold this while using apt: its directories are shared between checkouts.
apt_lock()
{
    mkdir -p "$APT_DIR"
    hold_lock "$APT_DIR/lock"
}
