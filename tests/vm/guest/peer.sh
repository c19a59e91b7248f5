# For the peer (tests/vm/peer.py): a machine in which the host's own programs run, over this kernel's USB stack.

. /bh.sh

# peer_boot TOP - the host's files, read-only, as the root of those programs; TOP is the project's folder.
peer_boot() {
    modprobe -a virtio_pci virtio_console 9pnet_virtio 9p virtio_net 2>/dev/null # a kernel may have some built in
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=507904,ro host /host || return 1
    mkdir -p /top /dev/pts /dev/shm
    mount --bind "/host$1" /top
    modprobe configfs
    mount -t configfs none /sys/kernel/config || return 1
    mount -t devpts none /dev/pts
    mount -t tmpfs none /dev/shm
    for place in proc sys dev; do mount --rbind /$place /host/$place || return 1; done
    mount --bind /tmp /host/tmp
    mount -t tmpfs none /host/run
    # What we have just hidden may be where the project lies.
    [ -d "/host$1" ] || { mkdir -p "/host$1" && mount --bind /top "/host$1"; }
    ifconfig lo 127.0.0.1
    ifconfig eth0 10.0.2.15 netmask 255.255.255.0
    route add default gw 10.0.2.2
}

# inside COMMAND... - runs it with the host's files as its root, and an environment of its own, in which
# udev works as it does where it is at home
inside() {
    chroot /host /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/tmp LC_ALL=C.UTF-8 SYSTEMD_IGNORE_CHROOT=1 PYTHONDONTWRITEBYTECODE=1 "$@"
}

# peer_serve - does what the host says on the port "agent", to the end. A request is a line "WHERE SECONDS SCRIPT", the
# script in base64; the answer a line "STATUS BYTES" and what the script printed.
peer_serve() {
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name")" != agent ] || break
    done
    exec 3<>"/dev/${port##*/}"
    cd /tmp || return 1
    echo ready >&3
    while read -r where seconds script <&3; do
        echo "$script" | base64 -d >/tmp/.script
        case $where in
            # This timeout ends the script's children, too.
            inside) inside /usr/bin/timeout -k 2 "$seconds" sh /tmp/.script ;;
            kernel) timeout -s KILL "$seconds" sh -c '. /peer.sh; . /tmp/.script' ;;
        esac </dev/null >/tmp/.output 2>&1
        echo "$? $(wc -c </tmp/.output)" >&3
        cat /tmp/.output >&3
    done
}

# begin_gadget NAME VENDOR:PRODUCT SERIAL - goes where the rest of it is to be made
begin_gadget() {
    modprobe libcomposite
    mkdir "/sys/kernel/config/usb_gadget/$1" && cd "/sys/kernel/config/usb_gadget/$1" || return 1
    echo "0x${2%:*}" >idVendor
    echo "0x${2#*:}" >idProduct
    mkdir strings/0x409
    echo "$3" >strings/0x409/serialnumber
    echo Bulkhead >strings/0x409/manufacturer
    echo "$1" >strings/0x409/product
}

# add_function MODULE NAME CONFIGURATION
add_function() {
    modprobe "$1"
    mkdir -p "functions/$2" "configs/$3" && ln -s "functions/$2" "configs/$3/"
}

# NAME VENDOR:PRODUCT SERIAL IMAGE
gadget_mass_storage() {
    begin_gadget "$1" "$2" "$3" && add_function usb_f_mass_storage mass_storage.0 c.1 || return 1
    echo 1 >functions/mass_storage.0/lun.0/removable
    echo "$4" >functions/mass_storage.0/lun.0/file
}

# NAME VENDOR:PRODUCT SERIAL - what is written to its /dev/ttyACM0 comes out of the peer's /dev/ttyGS0
gadget_acm() {
    begin_gadget "$1" "$2" "$3" && add_function usb_f_acm acm.0 c.1
}

# NAME VENDOR:PRODUCT SERIAL - gadget zero: configuration 3 is source and sink, 2 is loopback
gadget_zero() {
    begin_gadget "$1" "$2" "$3" && add_function usb_f_ss_lb SourceSink.0 c.3 && add_function usb_f_ss_lb Loopback.0 c.2
}

# busid VENDOR:PRODUCT SECONDS [SERIAL] - the first such device, once it is there and configured
busid() {
    tries=$(($2 * 20))
    while :; do
        for device in /sys/bus/usb/devices/*; do
            if [ "$(cat "$device/idVendor" 2>/dev/null):$(cat "$device/idProduct" 2>/dev/null)" = "$1" ] &&
                { [ -z "${3-}" ] || [ "$(cat "$device/serial" 2>/dev/null)" = "$3" ]; } &&
                [ -n "$(cat "$device/bConfigurationValue")" ]; then
                echo "${device##*/}"
                return
            fi
        done
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "no $1 ${3-} among: $(cat /sys/bus/usb/devices/*/product | tr '\n' ' ')"; return 1; }
        usleep 50000
    done
}

# wait_listening PORT PID [SECONDS] - until somebody listens at this TCP port; at once no more if PID ends
wait_listening() {
    tries=$((${3:-20} * 20))
    until grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6; do
        tries=$((tries - 1))
        { [ $tries -gt 0 ] && [ -d "/proc/$2" ]; } || { echo "nobody listens at port $1"; return 1; }
        usleep 50000
    done
}
