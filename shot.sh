# shot.sh URL OUT W H [extra]
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=4000 --user-data-dir=/tmp/try-D/browser --window-size=$3,$4 --screenshot=$2 $5 "$1" 2>/dev/null
