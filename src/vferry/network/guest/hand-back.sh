# shellcheck shell=sh disable=SC2154,SC2086
# Gives the NIC that the guest ends with to what configured the one that it began with, which then renews leases and sees
# to name servers. By itself that would not find it, as its permanent MAC is made up, or would configure it from scratch.
# So it is told, until the guest boots, what the old NIC's configuration was, and to keep what is there.

profile=/run/$key.profile network=/run/$key.network handed=/run/systemd/network/01-$key.network
manager=org.freedesktop.NetworkManager there=/run/$key.ipv6

# Written down while the old NIC is there; of one that was not given back, what was written before holds.
remember_configuration() {
  ! has_network_manager || ! remember_profile > "$profile.new" || mv "$profile.new" "$profile"
  ! has_networkd || ! remember_network > "$network.new" || mv "$network.new" "$network"
  rm -f "$profile.new" "$network.new"
}
# NetworkManager before 1.44 configures a NIC from scratch as soon as it may have it.
remember_profile() {
  release=$(nm -g version general) && command -v busctl > /dev/null || return 1
  case $release in 1.4[4-9].* | 1.[5-9]?.* | 1.???.* | [2-9].*) ;; *) return 1 ;; esac
  [ "$(of_device GENERAL.STATE)" = "100 (connected)" ] || return 1
  nm -t -e no -f connection.zone,802-3-ethernet.mtu,ipv4,ipv6 connection show "$(of_device GENERAL.CON-UUID)"
}
nm() { LC_ALL=C nmcli "$@" 2>/dev/null; }
tell() { nm "$@" > /dev/null; }
of_device() { nm -g "$1" device show "$own"; }
await_of_device() {
  tries=0
  until answer=$(of_device "$1") && [ -n "$answer" ]; do
    tries=$((tries + 1)); [ $tries -lt 50 ] || return 1
    sleep 0.2
  done
}
# The DHCP client's number is made of the name that udev would give the NIC, which is another one in another slot.
remember_network() {
  [ "$(release_of_systemd)" -ge 243 ] || return 1
  line "/sys/class/net/$own/ifindex"; link=/run/systemd/netif/links/$line lease=/run/systemd/netif/leases/$line
  [ -r "$link" ] || return 1
  files=$(sed -n 's/^NETWORK_FILE=//p; s/^NETWORK_FILE_DROPINS="\(.*\)"/\1/p' "$link" | tr : ' ')
  [ -n "$files" ] || return 1
  number=$(sed -n 's/^CLIENTID=ff\(........\).*/\1/p' "$lease" 2>/dev/null || :)
  awk '/^\[/ { skip = /^\[Match\]/ } !skip' $files
  printf '\n[Network]\nKeepConfiguration=yes\n'
  [ -z "$number" ] || printf '[DHCPv4]\nIAID=%s\n' $((0x$number))
}
# Whether it has been given back.
given_back() {
  if [ -e "$network" ]; then to_networkd; elif [ -e "$profile" ]; then to_network_manager; else false; fi
}
to_networkd() {
  # While the other NIC was there it could not have one, and the kernel makes none unless it is told so in this way.
  ip link set dev "$own" addrgenmode none
  echo 0 > "/proc/sys/net/ipv6/conf/$own/addr_gen_mode"
  { printf '[Match]\nName=%s\n' "$own"; cat "$network"; } > "$handed"
  rm -f "$networkd"
  networkctl reload
}
# A NIC that it is told to manage it first leaves as it is, by a profile that it makes for that. Changed settings are
# applied to that NIC with nothing taken away only over D-Bus, and not those of a profile that has been changed: so a
# copy is made to be changed, and the profile afterwards, which then has no effect.
to_network_manager() {
  [ "$(of_device GENERAL.CONNECTION)" = "$key" ] || take_up || return 1
  # Without a lease there would be no name servers, once those are forgotten that it had.
  await_lease || names=
}
take_up() {
  tell connection delete "$key" || :
  tell device set "$own" managed yes || return 1
  await_of_device GENERAL.CON-UUID || return 1
  found=$answer
  tell connection clone --temporary "$found" "$key" && as_before "$key" && apply_copy || return 1
  tell connection delete "$key" || return 1
  as_before "$found" connection.id "$key" connection.autoconnect yes 802-3-ethernet.mac-address ''
}
# as_before PROFILE MORE...: has the profile set as the old NIC's was, and more.
as_before() {
  while IFS=: read -r name value; do
    case $name in *-deprecated) ;; *) set -- "$@" "$name" "$value" ;; esac
  done < "$profile"
  tell connection modify --temporary "$@"
}
# What GetSettings prints is what Reapply takes. Its flag 1 is to keep what is there; but up to 1.52 IPv6 is taken away
# for a moment nevertheless. So what is missing is put back at once, and nobody is asked whether an address is free.
apply_copy() {
  copy=$(nm -t -f NAME,DBUS-PATH connection show | sed -n "s/^$key://p") device=$(of_device GENERAL.DBUS-PATH)
  settings=$(busctl -- call $manager $copy $manager.Settings.Connection GetSettings) || return 1
  accept_dad=/proc/sys/net/ipv6/conf/$own/accept_dad
  {
    ip -6 -o address show dev "$own" scope global | sed 's/.* inet6 \([^ ]*\) .*/address add \1 nodad noprefixroute/'
    routes "$own" 6 | sed 's/^/route add /'
  } | sed "s/\$/ dev $own/" > "$there"
  line "$accept_dad"; asked=$line
  echo 0 > "$accept_dad"
  applied=0
  echo "${settings#* } 0 1" | xargs busctl -- call $manager $device $manager.Device Reapply 'a{sa{sv}}tu' || applied=1
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    ip -6 -force -batch "$there" > /dev/null 2>&1 || :
    sleep 0.05
  done
  echo "$asked" > "$accept_dad"
  rm -f "$there"
  return $applied
}
await_lease() { ! grep -q '^ipv4.method:auto' "$profile" || await_of_device DHCP4; }
# dhclient goes on asking by the NIC that is gone, and takes the address away when the lease ends. Started anew it asks for
# the same lease; it stays in the group that it was in, lest it ends with the guest's agent.
renew_dhclient() {
  for dir in $(running dhclient); do
    case " $(tr '\0' ' ' < "$dir/cmdline")" in *nm-dhcp*) ;; *" $own "*) (exec > /dev/null 2>&1; start_anew "$dir") & ;; esac
  done
}
start_anew() {
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "$1/cgroup")/cgroup.procs
  cat "$1/environ" "$1/cmdline" |
    xargs -0 sh -c '
      echo $$ > "$0"; kill -9 "$1"
      for _ in 1 2 3 4 5 6 7 8 9; do ! kill -0 "$1" || sleep 0.1; done
      shift; exec env -i "$@"' "$group" "${1#/proc/}"
}
