# Made from `chinwag --help` by tests/man.rs, which checks it.
_chinwag() {
    local command=chinwag word=${COMP_WORDS[COMP_CWORD]} at words
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$command ${COMP_WORDS[at]}" in
            'chinwag backup' | \
                'chinwag bot' | \
                'chinwag bot add' | \
                'chinwag bot rotate' | \
                'chinwag check' | \
                'chinwag export' | \
                'chinwag health' | \
                'chinwag import' | \
                'chinwag invite' | \
                'chinwag prune' | \
                'chinwag restore' | \
                'chinwag session' | \
                'chinwag session list' | \
                'chinwag session revoke' | \
                'chinwag user' | \
                'chinwag user add' | \
                'chinwag user delete' | \
                'chinwag user disable' | \
                'chinwag user enable' | \
                'chinwag user list' | \
                'chinwag user passwd' | \
                'chinwag user role')
                command+=" ${COMP_WORDS[at]}" ;;
        esac
    done
    case $command in
        'chinwag') words='--listen --trusted-proxy --tls-cert --tls-key --push-contact --push-host --metrics-listen --db --registration --name --public-url --host --rooms --invites --images --images-keep-days --durability --keep-messages --keep-days --min-free --max-db-size --message-rate --auth-rate --max-connections --user-connections --address-connections --shards --ping-interval --allow-origin --log-format --help --version user bot session invite backup restore export import prune check health' ;;
        'chinwag backup') words='--db --help --version' ;;
        'chinwag bot') words='--db --help --version add rotate' ;;
        'chinwag bot add') words='--db --help --version' ;;
        'chinwag bot rotate') words='--db --help --version' ;;
        'chinwag check') words='--db --help --version' ;;
        'chinwag export') words='--db --help --version' ;;
        'chinwag health') words='--db --help --version' ;;
        'chinwag import') words='--db --help --version' ;;
        'chinwag invite') words='--uses --expires --url --db --help --version' ;;
        'chinwag prune') words='--older-than --db --help --version' ;;
        'chinwag restore') words='--db --help --version' ;;
        'chinwag session') words='--db --help --version list revoke' ;;
        'chinwag session list') words='--user --db --help --version' ;;
        'chinwag session revoke') words='--user --db --help --version' ;;
        'chinwag user') words='--db --help --version add list passwd disable enable role delete' ;;
        'chinwag user add') words='--db --help --version' ;;
        'chinwag user delete') words='--messages --db --help --version' ;;
        'chinwag user disable') words='--db --help --version' ;;
        'chinwag user enable') words='--db --help --version' ;;
        'chinwag user list') words='--db --help --version' ;;
        'chinwag user passwd') words='--db --help --version' ;;
        'chinwag user role') words='--db --help --version' ;;
    esac
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        --durability) words='full normal' ;;
        --images) words='on off' ;;
        --invites) words='everyone moderators' ;;
        --log-format) words='text json' ;;
        --registration) words='open invite closed' ;;
        --rooms) words='everyone moderators' ;;
        --address-connections | \
            --allow-origin | \
            --auth-rate | \
            --db | \
            --expires | \
            --host | \
            --images-keep-days | \
            --keep-days | \
            --keep-messages | \
            --listen | \
            --max-connections | \
            --max-db-size | \
            --message-rate | \
            --metrics-listen | \
            --min-free | \
            --name | \
            --older-than | \
            --ping-interval | \
            --public-url | \
            --push-contact | \
            --push-host | \
            --shards | \
            --tls-cert | \
            --tls-key | \
            --trusted-proxy | \
            --url | \
            --user | \
            --user-connections | \
            --uses) words='' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
# Where there is no word to offer, the name of a file.
complete -o default -F _chinwag chinwag
